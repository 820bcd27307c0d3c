//! The page for people: a few static files, which are the same for everybody.
//!
//! ```text
//! /           index.html ─┬─ page.css
//!                         └─ page.js ── /page/*.js ──▶ /mcp and /v1/builds/…/outputs/…, with the token of whoever looks
//! ```
//! Nothing here knows of builds: the page calls the tools, and fetches outputs, like any agent. What a build has printed becomes
//! text there, never markup, and the policy below lets nothing else run.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

/// Scripts, styles and calls of this server alone; no inline script, no markup made of text (trusted types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type and content of each file.
const FILES: [(&str, &str, &str); 14] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page.css", CSS, include_str!("page/page.css")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/page/build.js", SCRIPT, include_str!("page/build.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    (
        "/page/icon.svg",
        "image/svg+xml",
        include_str!("page/icon.svg"),
    ),
    ("/page/kill.js", SCRIPT, include_str!("page/kill.js")),
    ("/page/list.js", SCRIPT, include_str!("page/list.js")),
    ("/page/log.js", SCRIPT, include_str!("page/log.js")),
    ("/page/mcp.js", SCRIPT, include_str!("page/mcp.js")),
    ("/page/parts.js", SCRIPT, include_str!("page/parts.js")),
    ("/page/poll.js", SCRIPT, include_str!("page/poll.js")),
    ("/page/save.js", SCRIPT, include_str!("page/save.js")),
    ("/page/steps.js", SCRIPT, include_str!("page/steps.js")),
];

/// Serves the page; no token is needed for it.
pub fn router() -> Router {
    let mut router = Router::new();
    for (path, kind, text) in FILES {
        let tag = tag(text);
        let file = move |asked: HeaderMap| std::future::ready(answer(kind, text, &tag, &asked));
        router = router.route(path, get(file));
    }
    router
}

/// Names this very content.
fn tag(text: &str) -> String {
    format!("\"{}\"", hex::encode(Sha256::digest(text)))
}

/// The file, or that the browser has it already: it asks each time, so that all files are of one version.
fn answer(kind: &'static str, text: &'static str, tag: &str, asked: &HeaderMap) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        (ETAG, tag),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    let known = (asked.get_all(IF_NONE_MATCH).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| one.trim().trim_start_matches("W/") == tag);
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    #[test]
    fn every_file_that_is_named_is_served() {
        let named = Regex::new(r##"(?:href|src)="([^"#]+)"|from "(\./[^"]+)""##).unwrap();
        let mut count = 0;
        for (path, _, text) in FILES {
            let directory = &path[..=path.rfind('/').unwrap()];
            for found in named.captures_iter(text) {
                let name = found.get(1).or(found.get(2)).unwrap().as_str();
                let wanted = format!("{directory}{}", name.trim_start_matches("./"));
                assert!(FILES.iter().any(|(path, ..)| *path == wanted), "{wanted}");
                count += 1;
            }
        }
        assert!(count > FILES.len(), "{count}");
    }

    #[test]
    fn nothing_is_inline() {
        let (_, _, page) = FILES[0];
        let inline =
            Regex::new(r"<style|<script(?: [^>]*)?>[^<]|\son\w+=|\sstyle=|javascript:").unwrap();
        assert!(!inline.is_match(page));
        let markup =
            Regex::new("innerHTML|outerHTML|insertAdjacentHTML|document\\.write|eval\\(").unwrap();
        for (path, _, text) in FILES {
            assert!(!markup.is_match(text), "{path}");
        }
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let asked = |tags: &str| HeaderMap::from_iter([(IF_NONE_MATCH, tags.parse().unwrap())]);
        let status = |asked: &HeaderMap| answer(CSS, "x", &tag("x"), asked).status();
        assert_eq!(status(&HeaderMap::new()), StatusCode::OK);
        assert_eq!(status(&asked("\"a\"")), StatusCode::OK);
        let known = format!("\"a\", W/{}", tag("x"));
        assert_eq!(status(&asked(&known)), StatusCode::NOT_MODIFIED);
    }
}
