//! An archive on its way in: plain, or packed with gzip or zstd.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as Zstd;

/// RFC 1952, section 2.3.1.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// RFC 8878, section 3.1.1.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Binary logarithm of the memory that unpacking may need: 8 MiB, which every decoder should give
/// (RFC 8878, section 3.1.1.1.2).
const ZSTD_WINDOW: u32 = 23;

/// An archive whose first bytes were looked at.
type Whole<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// What an archive holds when it is unpacked; how it is packed is told by its first bytes.
pub enum Decoded<R: Read> {
    /// It is not packed.
    Plain(Whole<R>),
    /// By gzip, in any number of members.
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
    /// By zstd, in any number of frames.
    Zstd(Box<Zstd<'static, Whole<R>>>),
}

impl<R: Read> Decoded<R> {
    /// Looks at the first bytes. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(mut archive: R) -> io::Result<Self> {
        let mut begin = Vec::new();
        (&mut archive)
            .take(ZSTD.len() as u64)
            .read_to_end(&mut begin)?;
        let (gzip, zstd) = (begin.starts_with(GZIP), begin.starts_with(ZSTD));
        let whole = Cursor::new(begin).chain(archive);
        let archive = BufReader::with_capacity(64 * 1024, whole);
        if gzip {
            return Ok(Self::Gzip(Box::new(MultiGzDecoder::new(archive))));
        }
        if zstd {
            let mut decoder = Zstd::with_buffer(archive)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            return Ok(Self::Zstd(Box::new(decoder)));
        }
        Ok(Self::Plain(archive))
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(archive) => archive.read(buffer),
            Self::Gzip(archive) => archive.read(buffer),
            Self::Zstd(archive) => archive.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        Decoded::new(packed)?.read_to_end(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn each_way_to_pack_is_known() {
        let text = b"some text".repeat(1000);
        assert_eq!(read(&text).unwrap(), text);
        assert_eq!(read(&gzip(&text)).unwrap(), text);
        assert_eq!(
            read(&zstd::encode_all(&text[..], 19).unwrap()).unwrap(),
            text
        );
        let twice = [gzip(&text), gzip(&text)].concat();
        assert_eq!(read(&twice).unwrap(), text.repeat(2));
        assert_eq!(read(b"").unwrap(), b"");
    }

    #[test]
    fn what_was_cut_off_or_needs_too_much_memory_is_an_error() {
        let text = b"some text".repeat(1000);
        let packed = gzip(&text);
        assert!(read(&packed[..packed.len() - 9]).is_err());
        let packed = zstd::encode_all(&text[..], 3).unwrap();
        assert!(read(&packed[..packed.len() - 3]).is_err());
        let mut wide = zstd::Encoder::new(Vec::new(), 3).unwrap();
        wide.window_log(27).unwrap();
        wide.long_distance_matching(true).unwrap();
        wide.write_all(&text).unwrap();
        let error = read(&wide.finish().unwrap()).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }
}
