//! Foreign words made harmless: control, bidirectional and zero-width characters removed.

/// Whether a character may stand in text that a model or a person reads.
pub fn is_harmless(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'))
}

/// One line of foreign text: terminal sequences and harmful characters removed, tabs kept as spaces.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\t' => out.push_str("    "),
            '\u{1b}' => skip_escape(&mut chars),
            c if is_harmless(c) => out.push(c),
            _ => {}
        }
    }
    out
}

/// Skips one ANSI sequence after its ESC (ECMA-48: CSI, OSC and two-character forms).
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            while let Some(&c) = chars.peek() {
                if !(' '..='~').contains(&c) {
                    break;
                }
                chars.next();
                if ('@'..='~').contains(&c) {
                    break;
                }
            }
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            while let Some(c) = chars.next() {
                if c == '\u{7}' {
                    break;
                }
                if c == '\u{1b}' {
                    if chars.peek() == Some(&'\\') {
                        chars.next();
                    }
                    break;
                }
            }
        }
        // Those that choose a character set have bytes between (ESC ( B, as tput sgr0 sends it).
        Some(_) => {
            while chars.next_if(|c| (' '..='/').contains(c)).is_some() {}
            chars.next_if(|c| ('0'..='~').contains(c));
        }
        None => {}
    }
}

/// Cleaned and cut to at most `max` characters, with `…` where something was cut.
pub fn short(text: &str, max: usize) -> String {
    let cleaned = line(text);
    if cleaned.chars().count() <= max {
        return cleaned;
    }
    let mut cut: String = cleaned.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Cleaned and cut to about `max` characters: in the middle, where an error says least. What failed stands
/// at its beginning, why at its end.
pub fn abridged(text: &str, max: usize) -> String {
    let cleaned = line(text);
    let count = cleaned.chars().count();
    if count <= max {
        return cleaned;
    }
    let beginning: String = cleaned.chars().take(max / 2).collect();
    let end: String = cleaned.chars().skip(count - max / 2).collect();
    format!("{beginning} … {end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_middle_of_a_long_line_goes() {
        assert_eq!(abridged("abcdefghij", 10), "abcdefghij");
        assert_eq!(abridged("abcdefghijk", 4), "ab … jk");
    }

    #[test]
    fn colours_titles_and_invisible_characters_go() {
        assert_eq!(line("\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}x"), "red x");
        assert_eq!(line("a\u{202e}b\u{200b}c\rd\u{7}"), "abcd");
        assert_eq!(line("\u{1b}]8;;http://x\u{1b}\\link"), "link");
        assert_eq!(
            line("\u{1b}(B\u{1b}[mplain\u{1b}7 \u{1b}#8x\u{1b}("),
            "plain x"
        );
        assert_eq!(line("\u{1b}(\u{e9}t\u{e9}"), "\u{e9}t\u{e9}");
    }

    proptest! {
        #[test]
        fn only_harmless_characters_remain(text in ".*") {
            prop_assert!(line(&text).chars().all(is_harmless));
            prop_assert!(short(&text, 10).chars().count() <= 10);
        }
    }
}
