// The second line of the TypeScript SDK.

import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { talk } from './talk.mjs';

await talk({ Client, StdioClientTransport, StreamableHTTPClientTransport, SSEClientTransport });
