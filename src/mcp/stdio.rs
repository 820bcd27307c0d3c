//! Standard input and output as an MCP transport that answers what it cannot read.
//!
//! JSON-RPC 2.0, section 5.1: a line that is no JSON is answered with -32700 and `id: null`. What
//! is JSON is passed on as it is.

use serde::de::IgnoredAny;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::mpsc;

/// Longest message, in bytes.
const LONGEST: u64 = 64 << 20;
/// Bytes in flight between the pumps and the protocol.
const BUFFER: usize = 256 * 1024;
const PARSE_ERROR: &[u8] =
    b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"Parse error: this line is no JSON\"}}\n";

/// The two ends that the protocol reads from and writes to, and the pump that must end before the
/// program does.
pub fn transport() -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<()>) {
    let (input, input_pump) = tokio::io::duplex(BUFFER);
    let (output_pump, output) = tokio::io::duplex(BUFFER);
    let (refuse, refused) = mpsc::channel(16);
    tokio::spawn(read(input_pump, refuse));
    let writer = tokio::spawn(write(output_pump, refused));
    (input, output, writer)
}

async fn read(mut pump: DuplexStream, refuse: mpsc::Sender<()>) {
    let mut lines = BufReader::with_capacity(BUFFER, tokio::io::stdin());
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let blank = line.iter().all(u8::is_ascii_whitespace);
        if blank || serde_json::from_slice::<IgnoredAny>(&line).is_ok() {
            if pump.write_all(&line).await.is_err() {
                return;
            }
        } else if line.ends_with(b"\n") && refuse.send(()).await.is_err() {
            return;
        }
    }
}

async fn write(pump: DuplexStream, mut refused: mpsc::Receiver<()>) {
    let mut lines = BufReader::with_capacity(BUFFER, pump);
    let mut output = tokio::io::stdout();
    let mut line = Vec::new();
    loop {
        tokio::select! {
            // Nothing is lost when the other branch wins: what was read stays in `line`.
            read = lines.read_until(b'\n', &mut line) => {
                if !matches!(read, Ok(1..)) || output.write_all(&line).await.is_err() {
                    return;
                }
                line.clear();
            }
            Some(()) = refused.recv() => {
                if output.write_all(PARSE_ERROR).await.is_err() {
                    return;
                }
            }
        }
        if output.flush().await.is_err() {
            return;
        }
    }
}
