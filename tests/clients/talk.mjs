// What a test asks of either line of the TypeScript SDK: its wish comes on standard input, what was seen goes to
// standard output. Both are JSON. Whatever is thrown ends the program with a status that is not zero.

import { readFileSync } from 'node:fs';

export async function talk({ Client, StdioClientTransport, StreamableHTTPClientTransport, SSEClientTransport }) {
  const wish = JSON.parse(readFileSync(0, 'utf8'));
  const transport = connection();
  // The first line has no other way to tell it.
  let protocol;
  const tell = transport.setProtocolVersion?.bind(transport);
  transport.setProtocolVersion = (version) => {
    protocol = version;
    tell?.(version);
  };

  // The first line knows one era only, and no such option.
  const client = new Client({ name: 'nomad-build-test', version: '1' }, { versionNegotiation: { mode: wish.era } });
  await client.connect(transport);
  const seen = { tools: (await client.listTools()).tools.map((tool) => tool.name) };
  seen.build = await call('build', wish.build);
  const build = { build_id: seen.build.structuredContent?.build_id };
  seen.status = await call('status', build);
  seen.logs = await call('logs', build);
  seen.kill = await call('kill', build);
  seen.refused = await call('build', wish.refused);
  seen.protocol = client.getNegotiatedProtocolVersion?.() ?? protocol;
  await client.close();
  console.log(JSON.stringify(seen));

  function call(name, args) {
    return client.callTool({ name, arguments: args });
  }

  function connection() {
    if (wish.transport === 'stdio') {
      const [command, ...args] = wish.command;
      return new StdioClientTransport({ command, args, env: wish.env });
    }
    const Transport = { http: StreamableHTTPClientTransport, sse: SSEClientTransport }[wish.transport];
    return new Transport(new URL(wish.url), { requestInit: { headers: { Authorization: `Bearer ${wish.token}` } } });
  }
}
