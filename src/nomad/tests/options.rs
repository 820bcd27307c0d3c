//! Addresses and variables.

use std::path::PathBuf;

use crate::nomad::{Address, Options, Token};

fn from(env: &[(&str, &str)]) -> Result<Options, String> {
    let look = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Options::from_env(look).map_err(|error| error.to_string())
}

#[test]
fn without_variables_it_is_the_local_agent() {
    let options = from(&[]).unwrap();
    assert_eq!(options.address.to_string(), "http://127.0.0.1:4646");
    assert_eq!(
        (options.namespace.as_str(), options.region),
        ("default", None)
    );
    assert!(matches!(options.token, Token::None));
}

#[test]
fn the_customary_variables_work() {
    let options = from(&[
        ("NOMAD_ADDR", "https://nomad.example:4646"),
        ("NOMAD_TOKEN", "s3cr3t"),
        ("NOMAD_NAMESPACE", "builds"),
        ("NOMAD_REGION", "eu"),
        ("NOMAD_CACERT", "/ca.pem"),
        ("NOMAD_CAPATH", "/ca"),
        ("NOMAD_CLIENT_CERT", "/c.pem"),
        ("NOMAD_CLIENT_KEY", "/k.pem"),
        ("NOMAD_TLS_SERVER_NAME", "server.eu.nomad"),
        ("NOMAD_SKIP_VERIFY", "true"),
        ("NOMAD_HTTP_AUTH", "me:s3cr3t"),
    ])
    .unwrap();
    assert_eq!(options.address.to_string(), "https://nomad.example:4646");
    assert_eq!(options.namespace, "builds");
    assert_eq!(options.region.as_deref(), Some("eu"));
    assert_eq!(options.tls.ca_file, Some(PathBuf::from("/ca.pem")));
    assert_eq!(options.tls.client_key, Some(PathBuf::from("/k.pem")));
    assert_eq!(options.tls.server_name.as_deref(), Some("server.eu.nomad"));
    assert!(options.tls.skip_verify);
    assert!(!format!("{options:?}").contains("s3cr3t"), "{options:?}");
}

#[test]
fn every_fault_is_named() {
    let fault = from(&[
        ("NOMAD_ADDR", "nomad.example:4646"),
        ("NOMAD_CLIENT_CERT", "/c.pem"),
        ("NOMAD_SKIP_VERIFY", "yes"),
    ])
    .unwrap_err();
    for name in ["NOMAD_ADDR", "NOMAD_CLIENT_KEY", "NOMAD_SKIP_VERIFY"] {
        assert!(fault.contains(name), "{fault}");
    }
    for wrong in ["ftp://x", "unix://relative", "http://u:p@x", "http://x/?y"] {
        assert!(from(&[("NOMAD_ADDR", wrong)]).is_err(), "{wrong}");
    }
}

#[test]
fn inside_a_task_it_is_the_task_api() {
    let secrets = tempfile::tempdir().unwrap();
    let dir = secrets.path().display().to_string();
    let env = [("NOMAD_SECRETS_DIR", dir.as_str()), ("NOMAD_TOKEN", "old")];
    assert!(matches!(from(&env).unwrap().address, Address::Http(_)));
    for name in ["api.sock", "nomad_token"] {
        std::fs::write(secrets.path().join(name), "x").unwrap();
    }
    let options = from(&env).unwrap();
    let socket = secrets.path().join("api.sock");
    assert_eq!(options.address, Address::Unix(socket));
    assert!(
        matches!(options.token, Token::File(_)),
        "{:?}",
        options.token
    );
    let named = [env[0], ("NOMAD_ADDR", "http://x:1")];
    assert!(matches!(from(&named).unwrap().address, Address::Http(_)));
}
