use serde_json::{Value, json};

use crate::registry::auth::Credential;
use crate::registry::{Auth, AuthError, Repository};

fn read(file: &Value) -> Auth {
    Auth::from_slice(file.to_string().as_bytes()).unwrap()
}

fn user(auth: &Auth, repo: &str) -> Option<String> {
    let repo = Repository::parse(repo).unwrap();
    match auth.credential(&repo).unwrap()? {
        Credential::Basic { username, .. } => Some(username.clone()),
        Credential::IdentityToken(token) => Some(token.clone()),
    }
}

fn entry(name: &str) -> Value {
    json!({"username": name, "password": "pw"})
}

#[test]
fn the_most_specific_key_serves() {
    let auth = read(&json!({"auths": {
        "h.x": entry("host"), "h.x:5000": entry("port"),
        "h.x/a": entry("space"), "h.x/a/b/": entry("repo"),
    }}));
    assert_eq!(user(&auth, "h.x/a/b").unwrap(), "repo");
    assert_eq!(user(&auth, "h.x/a/b/c").unwrap(), "repo");
    assert_eq!(user(&auth, "h.x/a/bc").unwrap(), "space");
    assert_eq!(user(&auth, "h.x/ab").unwrap(), "host");
    assert_eq!(user(&auth, "h.x:5000/a/b").unwrap(), "port");
    assert_eq!(user(&auth, "h.x:5001/a/b"), None);
    assert_eq!(user(&auth, "i.h.x/a"), None);
}

#[test]
fn all_forms_are_read() {
    let auth = read(&json!({"auths": {
        "https://index.docker.io/v1/": {"auth": "aHViOnA6dw=="},
        "https://old.x/v2/": {"auth": "b2xkOnB3AAA"},
        "t.x": {"auth": "PHRva2VuPjo=", "identitytoken": "refresh"},
        "empty.x": {},
    }, "HttpHeaders": {"x": "y"}}));
    assert_eq!(user(&auth, "docker.io/a/b").unwrap(), "hub");
    assert_eq!(user(&auth, "index.docker.io/a/b").unwrap(), "hub");
    assert_eq!(user(&auth, "old.x/a").unwrap(), "old");
    assert_eq!(user(&auth, "t.x/a").unwrap(), "refresh");
    assert_eq!(user(&auth, "empty.x/a"), None);
    for secret in ["p:w", "aHViOnA6dw==", "pw", "b2xkOnB3AAA", "refresh"] {
        assert!(auth.secrets().contains(&secret.to_owned()), "{secret}");
    }
    assert!(!auth.secrets().contains(&String::new()));
    assert_eq!(user(&Auth::anonymous(), "h.x/a"), None);
}

#[test]
fn nothing_shows_a_secret() {
    let auth = read(&json!({"auths": {"h.x": {"username": "u", "password": "hunter2"}}}));
    let shown = format!("{auth:?} {auth:#?}");
    assert!(shown.contains("h.x"));
    assert!(!shown.contains("hunter2"));
    // serde's own message would quote the text.
    let wrong = br#"{"auths": {"h.x": "hunter2"}}"#;
    let error = Auth::from_slice(wrong).unwrap_err();
    assert!(matches!(error, AuthError::Json { line: 1, .. }));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn faulty_entries_are_named() {
    let key = || "h.x".to_owned();
    for bad in ["%%", "bm9jb2xvbg==", "/////w=="] {
        let file = json!({"auths": {"h.x": {"auth": bad}}}).to_string();
        let error = Auth::from_slice(file.as_bytes()).unwrap_err();
        assert_eq!(error, AuthError::Encoding { key: key() }, "{bad}");
    }
    let file = json!({"auths": {"h.x": {"username": "u"}}}).to_string();
    let error = Auth::from_slice(file.as_bytes()).unwrap_err();
    assert_eq!(error, AuthError::Incomplete { key: key() });
}

#[test]
fn helpers_are_refused_for_their_hosts_only() {
    let fault = |auth: &Auth, repo: &str| {
        let repo = Repository::parse(repo).unwrap();
        auth.credential(&repo).unwrap_err()
    };
    let auth = read(&json!({"auths": {"h.x": entry("u")}, "credHelpers": {"g.x": "gcloud"}}));
    assert_eq!(user(&auth, "h.x/a").unwrap(), "u");
    assert_eq!(user(&auth, "other.x/a"), None);
    let helper = AuthError::Helper {
        host: "g.x".to_owned(),
        helper: "gcloud".to_owned(),
    };
    assert_eq!(fault(&auth, "g.x/a"), helper);

    let auth = read(&json!({"auths": {"h.x": entry("u"), "d.x": {}}, "credsStore": "desktop"}));
    assert_eq!(user(&auth, "h.x/a").unwrap(), "u");
    assert!(
        matches!(fault(&auth, "d.x/a"), AuthError::Helper { helper, .. } if helper == "desktop")
    );
}
