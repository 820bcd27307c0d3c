// The first line of the TypeScript SDK.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { talk } from './talk.mjs';

await talk({ Client, StdioClientTransport, StreamableHTTPClientTransport, SSEClientTransport });
