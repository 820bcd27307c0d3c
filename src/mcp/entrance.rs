//! Where a caller elsewhere reaches this server, and how it brings a directory here.

use crate::service::Remedy;

/// Seconds for which a ticket is good.
const LASTS: u32 = 600;
/// Bytes of a path that is repeated.
const LONGEST: usize = 1024;
/// Names what is to be packed. In a repository that is what git does not ignore, as far as it is there and no
/// directory: those are submodules and repositories of others. Elsewhere, and in a directory that git ignores
/// as a whole, it is everything. Where git says something else, it names nothing: a repository that git does
/// not trust may hold what must not be uploaded. No word begins with a hyphen.
const LIST: &str = r#"case $(LC_ALL=C git check-ignore --no-index . 2>&1) in .|'fatal: not a git repo'*|*'git: '*'not found') find . -name .git -prune -o -print0;; *) git ls-files -coz --exclude-standard | xargs -0 sh -c 'for f do if [ -f "$f" ] || [ -h "$f" ]; then printf "./%s\0" "$f"; fi; done' sh;; esac"#;

/// How the caller of a request has reached this server; the transport finds it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// Such as `https://build.example.com`, without a slash at its end.
    pub url: String,
    /// The socket in the file system that it came by.
    pub socket: Option<String>,
}

impl Entrance {
    /// A line that uploads the directory `path` by a ticket.
    pub fn remedy(&self, path: &str, ticket: &str) -> Remedy {
        let plain = path.len() <= LONGEST && !path.chars().any(char::is_control);
        let dir = if plain {
            quoted(path)
        } else {
            "DIRECTORY".to_owned()
        };
        let socket = self.socket.as_deref().map(quoted);
        let socket = socket.map_or(String::new(), |path| format!("--unix-socket {path} "));
        let url = &self.url;
        Remedy {
            command: format!(
                "cd {dir} && {LIST} | tar -czf - --no-recursion --null -T - | curl -sS -T - {socket}-H 'Authorization: Bearer {ticket}' {url}/v1/contexts"
            ),
            context: ticket.to_owned(),
            seconds: LASTS,
        }
    }
}

/// A word for a POSIX shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_is_more_than_a_word() {
        let entrance = Entrance {
            url: "https://build.example.com".into(),
            socket: None,
        };
        let line = |path: &str| entrance.remedy(path, "upload-0").command;
        assert!(line("/a b").starts_with("cd '/a b' && case "));
        assert!(line("/a';reboot;'").starts_with(r"cd '/a'\'';reboot;'\''' && case "));
        assert!(line("/a\nreboot").starts_with("cd DIRECTORY && case "));
        assert!(line("/a").ends_with(
            "| curl -sS -T - -H 'Authorization: Bearer upload-0' https://build.example.com/v1/contexts"
        ));
        let by_socket = Entrance {
            socket: Some("/run/x.sock".into()),
            ..entrance
        };
        let line = by_socket.remedy("/a", "upload-0").command;
        assert!(line.contains(" --unix-socket '/run/x.sock' -H "), "{line}");
    }
}
