//! Against a real registry.

use std::time::Duration;

use super::fixture::{
    Image, LiveRegistry, NO_LIMIT, PASSWORD, USER, auth_for, client, noise, repository,
};
use crate::registry::manifest::OCI_MANIFEST;
use crate::registry::{
    Auth, Client, ClientOptions, Digest, Layout, Progress, PushReference, Reference, RegistryError,
    TlsFault,
};

async fn publish(client: &Client, image: &Image, to: &PushReference, auth: &Auth) -> Digest {
    let (layout, repo) = (image.open(), to.repository());
    let uploaded = client.upload_blobs(&layout, repo, auth, &mut |_| {}).await;
    uploaded.unwrap();
    let put = client.put_manifest_by_digest(layout.manifest(), repo, auth);
    put.await.unwrap();
    client.put_tag(layout.manifest(), to, auth).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_published_tag_last() {
    let registry = LiveRegistry::open();
    let image = Image::new(&noise(3 << 20));
    let layout = image.open();
    let client = client(&[&registry.host]);
    let auth = Auth::anonymous();
    let target = PushReference::parse(&format!("{}/team/app:v1", registry.host)).unwrap();
    let tag: Reference = target.clone().into();
    let repo = target.repository();

    assert_eq!(client.resolve(&tag, &auth).await.unwrap(), None);
    // A manifest whose blobs aren't there is rejected.
    let early = client
        .put_manifest_by_digest(layout.manifest(), repo, &auth)
        .await;
    match early.unwrap_err() {
        RegistryError::Rejected { status, code, .. } => {
            assert_eq!((status, code.as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
        }
        other => panic!("{other}"),
    }

    let mut seen: Vec<Progress> = Vec::new();
    let mut record = |progress| seen.push(progress);
    client
        .upload_blobs(&layout, repo, &auth, &mut record)
        .await
        .unwrap();
    let last = seen.last().unwrap();
    assert_eq!((last.blobs_done, last.blobs), (2, 2));
    assert_eq!(last.bytes_done, last.bytes);

    client
        .put_manifest_by_digest(layout.manifest(), repo, &auth)
        .await
        .unwrap();
    assert_eq!(
        client.resolve(&tag, &auth).await.unwrap(),
        None,
        "no tag yet"
    );
    let by_digest = Reference::by_digest(repo.clone(), image.manifest.clone());
    let found = client.resolve(&by_digest, &auth).await.unwrap();
    assert_eq!(found.as_ref(), Some(&image.manifest));

    let answered = client
        .put_tag(layout.manifest(), &target, &auth)
        .await
        .unwrap();
    assert_eq!(answered, image.manifest);
    assert_eq!(client.resolve(&tag, &auth).await.unwrap(), Some(answered));
    let stored = client.manifest(&tag, &auth).await.unwrap();
    assert_eq!(stored.bytes(), layout.manifest().bytes());
    assert_eq!(stored.media_type(), OCI_MANIFEST);

    // A tag is overwritten, the older manifest stays.
    let newer = Image::new(b"newer");
    publish(&client, &newer, &target, &auth).await;
    assert_eq!(
        client.resolve(&tag, &auth).await.unwrap(),
        Some(newer.manifest.clone())
    );
    assert!(client.resolve(&by_digest, &auth).await.unwrap().is_some());

    client
        .delete_manifest(repo, &newer.manifest, &auth)
        .await
        .unwrap();
    assert_eq!(client.resolve(&tag, &auth).await.unwrap(), None);
    let again = client.delete_manifest(repo, &newer.manifest, &auth).await;
    assert!(matches!(again, Err(RegistryError::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_there_are_not_sent_again() {
    let registry = LiveRegistry::open();
    let image = Image::new(b"hello");
    let client = client(&[&registry.host]);
    let target = PushReference::parse(&format!("{}/app:1", registry.host)).unwrap();
    publish(&client, &image, &target, &Auth::anonymous()).await;

    let layout = image.open();
    // Were it sent, it would have to be read.
    for digest in [&image.layer, &image.config] {
        std::fs::remove_file(image.blob_path(digest)).unwrap();
    }
    let (repo, auth) = (target.repository(), Auth::anonymous());
    let again = client.upload_blobs(&layout, repo, &auth, &mut |_| {}).await;
    again.unwrap();
    let elsewhere = repository(registry.host, "other");
    let sent = client
        .upload_blobs(&layout, &elsewhere, &auth, &mut |_| {})
        .await;
    assert!(matches!(sent, Err(RegistryError::Layout(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_swapped_after_verification_are_refused_by_the_registry() {
    let registry = LiveRegistry::open();
    let image = Image::new(b"hello");
    let layout = image.open();
    let path = image.blob_path(&image.layer);
    let size = path.metadata().unwrap().len();
    std::fs::write(&path, vec![0; usize::try_from(size).unwrap()]).unwrap();
    let sent = client(&[&registry.host])
        .upload_blobs(
            &layout,
            &repository(registry.host, "app"),
            &Auth::anonymous(),
            &mut |_| {},
        )
        .await;
    match sent.unwrap_err() {
        RegistryError::Rejected { code, .. } => assert_eq!(code, "DIGEST_INVALID"),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_wanted_checked_and_used() {
    let registry = LiveRegistry::with_password();
    let client = client(&[&registry.host]);
    let target = PushReference::parse(&format!("{}/app:1", registry.host)).unwrap();
    let repo = target.repository();
    let good = auth_for(registry.host, USER, PASSWORD);

    let none = client.check_push_access(repo, &Auth::anonymous()).await;
    assert!(matches!(
        none,
        Err(RegistryError::Unauthorized { given: false, .. })
    ));
    let wrong = client
        .check_push_access(repo, &auth_for(registry.host, USER, "wrong"))
        .await;
    let wrong = wrong.unwrap_err();
    assert!(matches!(
        wrong,
        RegistryError::Unauthorized { given: true, .. }
    ));
    assert!(!wrong.transient());
    client.check_push_access(repo, &good).await.unwrap();

    let image = Image::new(b"hello");
    assert_eq!(
        publish(&client, &image, &target, &good).await,
        image.manifest
    );
    // What one caller may doesn't pass to the next.
    let after = client
        .resolve(&target.clone().into(), &Auth::anonymous())
        .await;
    assert!(matches!(
        after,
        Err(RegistryError::Unauthorized { given: false, .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified() {
    let registry = LiveRegistry::with_tls();
    let client = |insecure: Vec<String>, ca_file| {
        Client::new(ClientOptions {
            insecure,
            ca_file,
            ..ClientOptions::default()
        })
        .unwrap()
    };
    let repo = repository(registry.host, "app");
    let auth = Auth::anonymous();

    let stranger = client(vec![], None).check_push_access(&repo, &auth).await;
    match stranger.unwrap_err() {
        RegistryError::Tls { why, .. } => assert!(matches!(why, TlsFault::NotTrusted(_)), "{why}"),
        other => panic!("{other}"),
    }
    let known = client(vec![], Some(registry.ca_file()));
    known.check_push_access(&repo, &auth).await.unwrap();
    let plain = client(vec![registry.host.to_string()], None);
    let plain = plain.check_push_access(&repo, &auth).await.unwrap_err();
    assert!(plain.to_string().contains("HTTPS server"), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_run_on_a_task_of_their_own() {
    let registry = LiveRegistry::open();
    let image = Image::new(b"hello");
    let client = client(&[&registry.host]);
    let repo = repository(registry.host, "app");
    let path = image.path().to_owned();
    let task = tokio::spawn(async move {
        let layout = tokio::task::spawn_blocking(move || Layout::open(&path, NO_LIMIT));
        let layout = layout.await.unwrap().unwrap();
        let auth = Auth::anonymous();
        client
            .upload_blobs(&layout, &repo, &auth, &mut |_| {})
            .await
    });
    let done = tokio::time::timeout(Duration::from_secs(30), task).await;
    done.unwrap().unwrap().unwrap();
}
