//! Against a real Nomad, with access control.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Agent, Knobs, client, options_at};
use crate::nomad::{
    Allocation, Client, Dispatch, Follower, Items, NomadError, Options, Position, Stream, Token,
    Topic, Written,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A job that prints its payload, then line by line `count` lines, then exits with `code`.
const JOB: &str = r#"
job "talk" {
  type = "batch"
  parameterized {
    payload       = "required"
    meta_optional = ["count", "code", "after"]
  }
  group "g" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "talk" {
      driver      = "raw_exec"
      kill_signal = "SIGTERM"
      dispatch_payload {
        file = "payload"
      }
      config {
        command = "/bin/sh"
        args = ["-c", <<EOF
trap 'echo stopped; exit 7' TERM
cat $NOMAD_TASK_DIR/payload; echo
i=0; while [ $i -lt "0$NOMAD_META_count" ]; do i=$((i+1)); echo line $i; done
n=0; while [ $n -lt "0$NOMAD_META_after" ]; do n=$((n+1)); sleep 0.1; done
exit $((0$NOMAD_META_code))
EOF
        ]
      }
      resources {
        cpu    = 10
        memory = 32
      }
    }
  }
}
"#;

fn lab() -> (Agent, Client) {
    let agent = Agent::start(Knobs {
        acl: true,
        ..Knobs::default()
    });
    agent.register(JOB, "default", &[]);
    let client = client(&agent, &agent.token);
    (agent, client)
}

async fn dispatch(client: &Client, token: &str, meta: &[(&str, &str)]) -> String {
    let dispatch = Dispatch {
        parent: "talk",
        payload: b"hello",
        meta,
        token,
        prefix: token,
        priority: None,
    };
    client.dispatch(&dispatch).await.unwrap().job_id
}

/// The allocation of a job, when `condition` holds for it.
async fn allocation(
    client: &Client,
    job: &str,
    condition: impl Fn(&Allocation) -> bool,
) -> Allocation {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = client.job_allocations(job).await.unwrap();
        if let Some(one) = list.first().filter(|one| condition(one)) {
            return one.clone();
        }
        assert!(Instant::now() < deadline, "{list:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn runs(allocation: &Allocation) -> bool {
    let state = allocation.task_states.get("talk");
    state.is_some_and(|state| state.has_started() && !state.is_dead())
}

fn is_dead(allocation: &Allocation) -> bool {
    let state = allocation.task_states.get("talk");
    state.is_some_and(crate::nomad::TaskState::is_dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_from_its_dispatch_to_its_end() {
    let (_agent, client) = lab();
    assert!(client.leader().await.unwrap().contains(':'));
    assert_eq!(client.agent().await.unwrap().version(), Some("1.11.3"));
    let parent = client.job("talk").await.unwrap();
    assert_eq!(parent.parameterized_job.unwrap().payload, "required");
    assert_eq!(parent.task_groups[0].tasks[0].driver, "raw_exec");
    let nodes = client.nodes().await.unwrap();
    assert!(nodes[0].drivers["raw_exec"].healthy, "{nodes:#?}");
    assert!(nodes[0].node_resources.as_ref().unwrap().memory.memory_mb > 0);

    let job = dispatch(&client, "one", &[("count", "3"), ("code", "7")]).await;
    assert!(job.starts_with("talk/dispatch-one-"), "{job}");
    assert_eq!(
        dispatch(&client, "one", &[]).await,
        job,
        "the token is known"
    );
    let children = client.jobs("talk/dispatch-one-").await.unwrap();
    assert_eq!(children.value.len(), 1);
    assert!(children.index > 0);
    assert_eq!(children.value[0].parent_id, "talk");

    let ended = allocation(&client, &job, |one| one.client_status.is_terminal()).await;
    let state = &ended.task_states["talk"];
    assert_eq!(
        (state.exit_code(), state.is_out_of_memory()),
        (Some(7), false)
    );
    assert!(is_dead(&ended));
    let again = client.allocation(&ended.id).await.unwrap();
    assert_eq!((again.id, again.job_id), (ended.id, job.clone()));
    let evaluations = client.job_evaluations(&job).await.unwrap();
    assert!(evaluations.iter().any(|one| one.status == "complete"));
    let all = client.allocations().await.unwrap();
    assert!(
        all.value
            .iter()
            .any(|one| one.job_id == job && is_dead(one))
    );

    assert!(client.job("nothing").await.unwrap_err().is_not_found());
    client.deregister("nothing").await.unwrap();
    client.deregister(&job).await.unwrap();
    assert!(client.job(&job).await.unwrap().stop);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_signalled_as_long_as_it_runs() {
    let (_agent, client) = lab();
    let job = dispatch(&client, "x", &[("after", "600")]).await;
    let running = allocation(&client, &job, runs).await;
    // The shell may not have its trap yet.
    let mut followed = follow(&client, &running.id, 0, false).0;
    timeout(PATIENCE, followed.next_chunk())
        .await
        .unwrap()
        .unwrap();
    assert!(client.signal(&running.id, "talk", "SIGTERM").await.unwrap());
    let ended = allocation(&client, &job, is_dead).await;
    assert_eq!(ended.task_states["talk"].exit_code(), Some(7));
    assert!(!client.signal(&running.id, "talk", "SIGTERM").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_written_by_check_and_set() {
    let (agent, client) = lab();
    let items = |text: &str| Items::from([("state".to_owned(), text.to_owned())]);
    let path = "nomad-build/b/x";
    assert_eq!(client.variable(path).await.unwrap(), None);
    let Written::Done(first) = client.write_variable(path, &items("1"), 0).await.unwrap() else {
        panic!("nobody else writes");
    };
    let conflict = client.write_variable(path, &items("2"), 0).await.unwrap();
    let Written::Conflict(Some(there)) = conflict else {
        panic!("{conflict:?}");
    };
    assert_eq!((there.modify_index, &there.items), (first, &items("1")));
    let read = client.variable(path).await.unwrap().unwrap();
    assert_eq!(read, there);

    // A list that waits returns with the change.
    let list = client.variables("nomad-build/b/", 0, Duration::ZERO).await;
    let list = list.unwrap();
    assert_eq!(list.value.len(), 1);
    let waiting = client.clone();
    let index = list.index;
    let waiting =
        tokio::spawn(async move { waiting.variables("nomad-build/b/", index, PATIENCE).await });
    let Written::Done(second) = client
        .write_variable(path, &items("2"), first)
        .await
        .unwrap()
    else {
        panic!("nobody else writes");
    };
    let changed = waiting.await.unwrap().unwrap();
    assert_eq!(changed.value[0].modify_index, second);
    assert!(changed.index >= second);

    // Whoever may not read gets a conflict without what is there, or a refusal.
    agent.must(
        "POST",
        "/v1/acl/policy/other",
        Some(&json!({"Name": "other", "Rules": "namespace \"default\" { variables { path \"other/*\" { capabilities = [\"write\"] } } }"})),
    );
    let token = agent.must(
        "POST",
        "/v1/acl/token",
        Some(&json!({"Name": "other", "Type": "client", "Policies": ["other"]})),
    );
    let other = super::client(&agent, token["SecretID"].as_str().unwrap());
    assert!(other.variable(path).await.unwrap_err().is_denied());
    let refused = other.write_variable(path, &items("3"), second).await;
    assert!(refused.unwrap_err().is_denied());

    let stale = client.delete_variable(path, first).await.unwrap();
    assert!(matches!(stale, Written::Conflict(_)), "{stale:?}");
    let gone = client.delete_variable(path, second).await.unwrap();
    assert!(matches!(gone, Written::Done(_)), "{gone:?}");
    assert_eq!(client.variable(path).await.unwrap(), None);
}

fn follow(
    client: &Client,
    allocation: &str,
    offset: u64,
    dead: bool,
) -> (Follower, watch::Sender<bool>) {
    let (tell, dead) = watch::channel(dead);
    let follower = Follower::new(
        client.clone(),
        allocation,
        "talk",
        Stream::Stdout,
        offset,
        dead,
    );
    (follower, tell)
}

async fn read_all(follower: &mut Follower) -> String {
    let mut bytes = Vec::new();
    while let Some(chunk) = timeout(PATIENCE, follower.next_chunk())
        .await
        .unwrap()
        .unwrap()
    {
        bytes.extend(chunk);
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_followed_to_its_end_and_resumed_anywhere() {
    let (_agent, client) = lab();
    let job = dispatch(&client, "x", &[("count", "30000"), ("after", "5")]).await;
    let placed = allocation(&client, &job, |one| !one.id.is_empty()).await;
    let (mut follower, tell) = follow(&client, &placed.id, 0, false);
    let watching = client.clone();
    let (id, watched_job) = (placed.id.clone(), job.clone());
    tokio::spawn(async move {
        allocation(&watching, &watched_job, is_dead).await;
        tell.send_replace(true);
    });
    let text = read_all(&mut follower).await;
    let expected: String = std::iter::once("hello\n".to_owned())
        .chain((1..=30000).map(|n| format!("line {n}\n")))
        .collect();
    assert_eq!(text.len(), expected.len());
    assert_eq!(text, expected);
    assert_eq!(follower.offset(), expected.len() as u64);
    assert!(!follower.is_headless());

    // After the end, from anywhere; and an offset at the very end has nothing.
    for offset in [0, 6, 100_000, expected.len() as u64] {
        let (mut late, _tell) = follow(&client, &id, offset, true);
        assert_eq!(
            read_all(&mut late).await,
            expected[usize::try_from(offset).unwrap()..]
        );
    }
    let wrong = Position {
        offset: 0,
        follow: false,
    };
    let wrong = client.logs(&id, "nothing", Stream::Stdout, wrong).await;
    assert!(matches!(
        wrong.unwrap_err(),
        NomadError::Rejected { .. } | NomadError::NotFound { .. }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_and_resume_behind_an_index() {
    let (agent, client) = lab();
    let topics = [Topic::Job, Topic::Allocation, Topic::Evaluation];
    let begin = client.jobs("").await.unwrap().index;
    let mut stream = client.events(&topics, begin).await.unwrap();
    let job = dispatch(&client, "x", &[]).await;
    let mut seen = Vec::new();
    let mut last = 0;
    let ended = loop {
        let frame = timeout(PATIENCE, stream.next_frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(frame.index == 0 || frame.index >= last, "{frame:?}");
        last = last.max(frame.index);
        for event in &frame.events {
            seen.push(event.topic.clone());
        }
        let ended = frame.events.into_iter().find_map(|event| {
            let found = event.payload.allocation?;
            (found.job_id == job && found.client_status.is_terminal()).then_some(found)
        });
        if let Some(ended) = ended {
            break ended;
        }
    };
    assert_eq!(ended.task_states["talk"].exit_code(), Some(0));
    for topic in ["Job", "Allocation", "Evaluation"] {
        assert!(seen.iter().any(|one| one == topic), "{seen:?}");
    }
    // Behind the last index nothing of it comes again but the boundary itself.
    let mut resumed = client.events(&topics, last + 1).await.unwrap();
    let next = dispatch(&client, "y", &[]).await;
    loop {
        let frame = timeout(PATIENCE, resumed.next_frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let jobs: Vec<_> = frame
            .events
            .iter()
            .filter_map(|event| event.payload.job.as_ref())
            .collect();
        assert!(frame.index == 0 || frame.index >= last, "{frame:?}");
        if jobs.iter().any(|one| one.id == next) {
            break;
        }
    }

    // Without the right, however Nomad says so.
    let token = agent.must(
        "POST",
        "/v1/acl/token",
        Some(&json!({"Name": "nobody", "Type": "client", "Policies": ["nothing"]})),
    );
    let nobody = super::client(&agent, token["SecretID"].as_str().unwrap());
    let refused = nobody.events(&topics, 0).await.unwrap_err();
    assert!(refused.is_denied(), "{refused:?}");
    assert!(nobody.job("talk").await.unwrap_err().is_denied());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_token_file_is_read_again() {
    let (agent, _) = lab();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "00000000-0000-0000-0000-000000000000\n").unwrap();
    let client = Client::new(Options {
        token: Token::File(file.path().to_owned()),
        ..options_at(&agent.address())
    })
    .unwrap();
    assert!(client.job("talk").await.unwrap_err().is_denied());
    std::fs::write(file.path(), format!("{}\n", agent.token)).unwrap();
    assert_eq!(client.job("talk").await.unwrap().id, "talk");
    std::fs::remove_file(file.path()).unwrap();
    let error = client.job("talk").await.unwrap_err();
    assert!(matches!(error, NomadError::Setup(_)), "{error:?}");
}

/// Certificates as `nomad tls` makes them: the server's name is not its host's.
#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_client_certificate_and_another_name() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = write("ca.pem", authority.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(authority, key);
    let issue = |name: &str| {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let file = |kind: &str| format!("{name}.{kind}.pem");
        (
            write(&file("cert"), certificate.pem()),
            write(&file("key"), key.serialize_pem()),
        )
    };
    let (cert, key) = issue("server.global.nomad");
    let (client_cert, client_key) = issue("client.global.nomad");
    let agent = Agent::start_behind_tls(&ca, &cert, &key);
    let address = agent.address().replace("http://", "https://");
    let options = |env: &[(&str, &std::path::Path)], name: Option<&str>| {
        Options::from_env(|wanted| match wanted {
            "NOMAD_ADDR" => Some(address.clone()),
            "NOMAD_TLS_SERVER_NAME" => name.map(str::to_owned),
            _ => {
                let found = env.iter().find(|(key, _)| *key == wanted);
                found.map(|(_, path)| path.display().to_string())
            }
        })
        .unwrap()
    };
    let all = [
        ("NOMAD_CACERT", ca.as_path()),
        ("NOMAD_CLIENT_CERT", client_cert.as_path()),
        ("NOMAD_CLIENT_KEY", client_key.as_path()),
    ];
    let name = Some("server.global.nomad");
    let deadline = Instant::now() + PATIENCE;
    let client = Client::new(options(&all, name)).unwrap();
    loop {
        match client.leader().await {
            Ok(_) => break,
            Err(error) => assert!(Instant::now() < deadline, "{error}\n{}", agent.explain()),
        }
    }
    let mut stream = client.events(&[Topic::Node], 0).await.unwrap();
    assert!(stream.next_frame().await.is_ok());
    let quick = |options| {
        let options = Options {
            backoff: Duration::from_millis(1),
            ..options
        };
        Client::new(options).unwrap()
    };
    // Without its own certificate, without the authority, without the name.
    for (env, name) in [(&all[..1], name), (&all[1..], name), (&all[..], None)] {
        let error = quick(options(env, name)).leader().await.unwrap_err();
        assert!(matches!(error, NomadError::Unreachable { .. }), "{error:?}");
    }
    let missing = options(
        &[("NOMAD_CACERT", std::path::Path::new("/nonexistent"))],
        None,
    );
    let error = Client::new(missing).unwrap_err().to_string();
    assert!(error.contains("/nonexistent"), "{error}");
}
