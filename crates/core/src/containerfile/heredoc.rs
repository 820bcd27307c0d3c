//! Finding the here-documents an instruction opens, as BuildKit's lexer (which Buildah 1.43 uses;
//! 1.28 knows no here-documents) finds them.
//!
//! The lexer is followed closely, its oddities included, because a here-document found or missed
//! shifts every later line of the file.

/// Depth of `${…:-${…}}` up to which an instruction is lexed; deeper ones open no here-document.
const MAX_DEPTH: u32 = 64;

/// The `<<NAME` of an instruction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub name: String,
    /// `<<-`: tabs before the closing line are ignored.
    pub strip_tabs: bool,
}

/// The here-documents that `line` opens, in order.
pub(super) fn openings(line: &str) -> Vec<Opening> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let words = words(line, true, true).unwrap_or_default();
    words.iter().filter_map(|word| opening(word)).collect()
}

/// Reads a word of the form `[DIGITS]<<[-][BLANKS]NAME`.
fn opening(word: &str) -> Option<Opening> {
    let rest = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (rest, strip_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let mut names = words(rest, false, false)?;
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Some(Opening { name, strip_tabs }),
        _ => None,
    }
}

/// Splits as a shell would, with no variable set. `None` if quotes or braces do not match.
fn words(text: &str, raw_quotes: bool, raw_escapes: bool) -> Option<Vec<String>> {
    let mut lexer = Lexer {
        chars: text.chars().peekable(),
        raw_quotes,
        raw_escapes,
        word: String::new(),
        depth: 0,
    };
    lexer.until(None, raw_escapes).map(|(_, words)| words)
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    raw_quotes: bool,
    raw_escapes: bool,
    /// The word being read. Shared by nested reads, which empty it: so does BuildKit.
    word: String,
    depth: u32,
}

impl Lexer<'_> {
    /// Reads up to `stop` or the end; gives the text read and its words.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Option<(String, Vec<String>)> {
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        self.word.clear();
        let mut text = String::new();
        let mut words = Vec::new();
        let mut in_word = false;
        loop {
            let Some(&c) = self.chars.peek() else {
                if stop.is_some() {
                    return None;
                }
                break;
            };
            match c {
                c if Some(c) == stop => {
                    self.chars.next();
                    break;
                }
                '\'' | '"' | '<' => {
                    let piece = match c {
                        '\'' => self.single_quoted()?,
                        '"' => self.double_quoted()?,
                        _ => self.angle(),
                    };
                    text.push_str(&piece);
                    self.word.push_str(&piece);
                    in_word = true;
                }
                '$' => {
                    let piece = self.dollar()?;
                    text.push_str(&piece);
                    for c in piece.chars() {
                        self.add(c, &mut words, &mut in_word);
                    }
                }
                '\\' => {
                    self.chars.next();
                    if self.raw_escapes {
                        self.word.push(c);
                        in_word = true;
                        text.push(c);
                    }
                    let Some(escaped) = self.chars.next() else {
                        continue;
                    };
                    self.word.push(escaped);
                    in_word = true;
                    text.push(escaped);
                }
                c => {
                    self.chars.next();
                    self.add(c, &mut words, &mut in_word);
                    text.push(c);
                }
            }
        }
        if !self.word.is_empty() {
            words.push(std::mem::take(&mut self.word));
        }
        self.raw_escapes = outer;
        Some((text, words))
    }

    fn add(&mut self, c: char, words: &mut Vec<String>, in_word: &mut bool) {
        if !c.is_whitespace() {
            self.word.push(c);
            *in_word = true;
        } else if *in_word && !self.word.is_empty() {
            words.push(std::mem::take(&mut self.word));
            *in_word = false;
        }
    }

    fn single_quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.chars.peek()? {
                '\'' => {
                    self.quote(&mut text);
                    return Some(text);
                }
                _ => text.extend(self.chars.next()),
            }
        }
    }

    fn double_quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.chars.peek()? {
                '"' => {
                    self.quote(&mut text);
                    return Some(text);
                }
                '$' => text.push_str(&self.dollar()?),
                '\\' => {
                    self.chars.next();
                    if self.raw_escapes {
                        text.push('\\');
                    }
                    match self.chars.peek()? {
                        '"' | '$' | '\\' => text.extend(self.chars.next()),
                        _ => text.push('\\'),
                    }
                }
                _ => text.extend(self.chars.next()),
            }
        }
    }

    /// Takes a quote, keeping it if quotes are kept.
    fn quote(&mut self, text: &mut String) {
        let quote = self.chars.next();
        if self.raw_quotes {
            text.extend(quote);
        }
    }

    /// `<<` takes the blanks that follow into the word.
    fn angle(&mut self) -> String {
        self.chars.next();
        if self.chars.next_if_eq(&'<').is_none() {
            return "<".to_owned();
        }
        let mut text = "<<".to_owned();
        while let Some(blank) = self.chars.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
            text.push(blank);
        }
        text
    }

    /// A variable; being unset, it stays as written.
    fn dollar(&mut self) -> Option<String> {
        self.chars.next();
        if self.chars.next_if_eq(&'{').is_none() {
            return Some(format!("${}", self.name()));
        }
        if matches!(self.chars.peek()?, '{' | '}' | ':') {
            return None;
        }
        let name = self.name();
        let mut modifier = String::new();
        let mut operator = self.chars.next()?;
        if operator == '}' {
            return Some(format!("${{{name}}}"));
        }
        if operator == '/' {
            self.chars.next_if_eq(&'/');
            let pattern = self.nested('/', true)?;
            let replacement = self.nested('}', true)?;
            return Some(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let colon = operator == ':';
        if colon {
            modifier.push(operator);
            operator = self.chars.next()?;
        } else if !matches!(operator, '+' | '-' | '?' | '#' | '%') {
            return None;
        }
        modifier.push(operator);
        let pattern = matches!(operator, '#' | '%');
        if colon && pattern {
            return None;
        }
        let word = self.nested('}', pattern)?;
        Some(format!("${{{name}{modifier}{word}}}"))
    }

    fn nested(&mut self, stop: char, raw_escapes: bool) -> Option<String> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let (text, _) = self.until(Some(stop), raw_escapes)?;
        self.depth -= 1;
        Some(text)
    }

    /// Digits, one special parameter, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(digit) = self.chars.next_if(|c| c.is_numeric()) {
                    name.push(digit);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }
}
