//! Where a caller is in its trace (W3C Trace Context, section 3.2).

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Id of the trace.
    pub trace: u128,
    /// Id of the caller's span.
    pub span: u64,
    /// The caller's spans are exported.
    pub sampled: bool,
}

impl Parent {
    /// Reads a `traceparent`; `None`: it is none, and as if it were not there.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut part = |length: usize| {
            let part = parts.next()?;
            let hex = part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            (hex && part.len() == length).then_some(part)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // Later versions may have more parts.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let parent = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (parent.trace != 0 && parent.span != 0).then_some(parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_where_it_says() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = Parent {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span: 0x00f0_67aa_0ba9_02b7,
            sampled: true,
        };
        let parse = |end: &str| Parent::parse(&format!("00-{trace}-00f067aa0ba902b7-{end}"));
        assert_eq!(parse("01"), Some(parent));
        let quiet = Parent {
            sampled: false,
            ..parent
        };
        assert_eq!(parse("00"), Some(quiet));
        let later = format!("cc-{trace}-00f067aa0ba902b7-01-what-comes");
        assert_eq!(Parent::parse(&later), Some(parent));
        assert_eq!(super::super::trace_id(Some(&parent)), trace);
        for wrong in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-x\"y-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "+0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(wrong), None, "{wrong}");
        }
        assert_eq!(super::super::trace_id(None).len(), 32);
    }
}
