//! What a dispatch carries: the plan and a small context, compressed; what does not fit lies in an
//! artifact that the payload names by its digest.
//!
//! Pure. The format: gzip of one line of JSON, behind it the context's tar where it is inside.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::build::{BuildId, Plan};
use crate::nomad::MAX_PAYLOAD;

/// Version of the format.
const VERSION: u32 = 1;
/// A context of more bytes is not even tried: it would hardly fit.
pub const MAX_INSIDE: u64 = 4 << 20;
/// Most bytes of a payload when it is unpacked.
const MAX_UNPACKED: u64 = 16 << 20;

/// Media type of a plan in an artifact.
pub const PLAN_TYPE: &str = "application/vnd.nomad-build.plan.v1+json";
/// Media type of a context in an artifact.
pub const CONTEXT_TYPE: &str = "application/vnd.nomad-build.context.v1.tar";
/// Type of the artifact that holds them.
pub const INPUT_TYPE: &str = "application/vnd.nomad-build.input.v1";
/// Type of the artifact of an upload.
pub const UPLOAD_TYPE: &str = "application/vnd.nomad-build.upload.v1";

/// What a job gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// The build.
    pub build_id: BuildId,
    /// The plan; `None`: it is in the artifact.
    pub plan: Option<Plan>,
    /// The context, as a tar.
    pub context: Option<Vec<u8>>,
    /// `host/repository@digest` of what is not in here.
    pub artifact: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    v: u32,
    build_id: BuildId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    #[serde(default)]
    context: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact: Option<String>,
}

/// Takes what a payload may carry. A context that does not fit is not compressed to its end.
#[derive(Default)]
struct Room(Vec<u8>);

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PAYLOAD {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a payload cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// It is damaged, or something else.
    #[error("the payload of the job cannot be read: {0}")]
    Damaged(String),
    /// It was made by another version of this program.
    #[error("the payload of the job has the version {0}, this program reads {VERSION}")]
    Version(u32),
}

impl Payload {
    /// The bytes for a dispatch; `None`: they are more than it may carry.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let head = Head {
            v: VERSION,
            build_id: self.build_id.clone(),
            plan: self.plan.clone(),
            context: self.context.is_some(),
            artifact: self.artifact.clone(),
        };
        // Fails where there is no room, and only there: every field has a JSON form.
        let mut gzip = GzEncoder::new(Room::default(), Compression::best());
        serde_json::to_writer(&mut gzip, &head).ok()?;
        gzip.write_all(b"\n").ok()?;
        gzip.write_all(self.context.as_deref().unwrap_or_default())
            .ok()?;
        gzip.finish().ok().map(|Room(bytes)| bytes)
    }

    /// Reads what [`Payload::encode`] made.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let damaged = |error: &dyn std::fmt::Display| PayloadError::Damaged(error.to_string());
        let mut unpacked = Vec::new();
        GzDecoder::new(bytes)
            .take(MAX_UNPACKED)
            .read_to_end(&mut unpacked)
            .map_err(|error| damaged(&error))?;
        let mut parts = unpacked.splitn(2, |byte| *byte == b'\n');
        let line = parts.next().unwrap_or_default();
        let version: serde_json::Value =
            serde_json::from_slice(line).map_err(|error| damaged(&error))?;
        match version.get("v").and_then(serde_json::Value::as_u64) {
            Some(v) if v == u64::from(VERSION) => {}
            v => {
                let v = v.and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
                return Err(PayloadError::Version(v));
            }
        }
        let head: Head = serde_json::from_value(version).map_err(|error| damaged(&error))?;
        let rest = parts.next().unwrap_or_default();
        Ok(Self {
            build_id: head.build_id,
            plan: head.plan,
            context: head.context.then(|| rest.to_vec()),
            artifact: head.artifact,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(context: Option<Vec<u8>>) -> Payload {
        Payload {
            build_id: BuildId::from_random([3; 16]),
            plan: None,
            context,
            artifact: Some("r.example/x@sha256:00".into()),
        }
    }

    #[test]
    fn it_comes_back_as_it_was() {
        for context in [None, Some(Vec::new()), Some(b"a\nb\n\0".to_vec())] {
            let payload = payload(context);
            let bytes = payload.encode().unwrap();
            assert_eq!(Payload::decode(&bytes).unwrap(), payload);
        }
    }

    #[test]
    fn what_nomad_would_not_take_is_not_made() {
        let mut noise = vec![0u8; MAX_PAYLOAD];
        fastrand::fill(&mut noise);
        assert_eq!(payload(Some(noise)).encode(), None);
        assert!(payload(Some(vec![0; 1 << 20])).encode().is_some());
    }

    #[test]
    fn no_more_is_written_than_a_payload_may_carry() {
        let mut room = Room::default();
        room.write_all(&[0; MAX_PAYLOAD]).unwrap();
        let error = room.write_all(&[0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(room.0.len(), MAX_PAYLOAD);
    }

    #[test]
    fn what_does_not_fit_is_not_compressed_to_its_end() {
        let mut gzip = GzEncoder::new(Room::default(), Compression::best());
        let mut noise = vec![0u8; 64 * MAX_PAYLOAD];
        fastrand::fill(&mut noise);
        let taken = noise
            .chunks(1024)
            .take_while(|chunk| gzip.write_all(chunk).is_ok());
        assert!(taken.count() < 8 * MAX_PAYLOAD / 1024);
    }

    #[test]
    fn something_else_is_refused() {
        assert!(Payload::decode(b"").is_err());
        assert!(Payload::decode(b"{}").is_err());
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"{\"v\": 9}\n").unwrap();
        let error = Payload::decode(&gzip.finish().unwrap()).unwrap_err();
        assert!(matches!(error, PayloadError::Version(9)), "{error}");
    }
}
