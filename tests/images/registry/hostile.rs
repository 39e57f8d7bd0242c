//! Registries that lie, or lead elsewhere: nothing of theirs enters the store, and hv ends with a reason.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Home;
use super::server::{INDEX, Image, MANIFEST, Server, answer, digest, head, piece};

/// Pulls `app` from there, which is to fail; what hv said.
#[track_caller]
fn refused(server: &Server) -> String {
    let home = Home::new();
    let done = home.run(&["pull", &format!("{}/app:1", server.address)]).expect(125);
    assert!(home.is_empty(), "no image has a name: {}", done.stderr);
    done.stderr
}

#[test]
fn an_honest_one_is_believed() {
    let image = Image::new(100_000);
    let (digest, served) = (image.digest(), image.clone());
    let server = Server::start(move |request, to| served.serve(request, to));
    let (home, name) = (Home::new(), format!("{}/app:1", server.address));
    let done = home.run(&["pull", &name]).expect(0);
    assert_eq!(done.text(), format!("{name}@{digest}\n"));
    assert_eq!(done.stderr, "", "no progress where there is no terminal");
    assert!(home.has(&digest) && home.has(&image.layer_digest()) && !home.is_empty());
    // Again: only the name is looked up.
    let json: serde_json::Value =
        serde_json::from_slice(&home.run(&["image", "pull", "--json", &name]).expect(0).stdout).unwrap();
    assert_eq!(json[0]["image"]["digest"], digest);
    assert_eq!(server.count(&image.layer_digest()), 1);
}

#[test]
fn another_manifest_than_the_pinned_one() {
    let image = Image::new(10);
    let server = Server::start(move |request, to| image.serve(request, to));
    let other = digest(b"other");
    let done = Home::new().run(&["pull", &format!("{}/app@{other}", server.address)]).expect(125);
    assert!(done.stderr.contains(&format!("bytes that are not {other}")), "{}", done.stderr);
}

#[test]
fn another_manifest_than_its_header_says() {
    let image = Image::new(10);
    let server = Server::start(move |request, to| match request.is_for("1") {
        true => {
            let headers = [("Content-Type", MANIFEST), ("Docker-Content-Digest", &digest(b"other"))];
            answer(to, "200 OK", &headers, &image.manifest)
        }
        false => image.serve(request, to),
    });
    assert!(refused(&server).contains("it is broken, or lies"));
}

#[test]
fn another_blob_of_the_same_size() {
    let image = Image::new(100_000);
    let layer = image.layer_digest();
    let server = Server::start(move |request, to| match request.is_for(&image.layer_digest()) {
        true => piece(request, to, &vec![b'x'; image.layer.len()]),
        false => image.serve(request, to),
    });
    assert!(refused(&server).contains(&format!("bytes that are not {layer}")));
}

#[test]
fn another_blob_on_retry_is_found_and_begun_anew() {
    let image = Image::new(100_000);
    let (layer, attempt) = (image.layer_digest(), AtomicUsize::new(0));
    let server = Server::start(move |request, to| {
        if !request.is_for(&image.layer_digest()) {
            return image.serve(request, to);
        }
        match attempt.fetch_add(1, Ordering::SeqCst) {
            // Half of it, then the second half of another one, then all of the right one.
            0 => {
                head(to, "200 OK", &[], image.layer.len())?;
                to.write_all(&image.layer[..50_000])
            }
            1 => piece(request, to, &vec![b'x'; image.layer.len()]),
            _ => piece(request, to, &image.layer),
        }
    });
    let home = Home::new();
    home.run(&["pull", &format!("{}/app", server.address)]).expect(0);
    assert!(home.has(&layer));
    let starts: Vec<usize> =
        server.log().iter().filter(|request| request.is_for(&layer)).map(|request| request.start()).collect();
    assert_eq!((starts.len(), starts[0], starts[2]), (3, 0, 0), "{starts:?}");
    assert!(starts[1] > 0, "{starts:?}");
}

#[test]
fn sizes_that_lie() {
    let image = Image::new(1000);
    let longer = image.clone();
    let server = Server::start(move |request, to| match request.is_for(&longer.layer_digest()) {
        true => answer(to, "200 OK", &[], &[&longer.layer[..], b"more"].concat()),
        false => longer.serve(request, to),
    });
    assert!(refused(&server).contains("where there should be"));
    // Without a length that gives it away.
    let server = Server::start(move |request, to| match request.is_for(&image.layer_digest()) {
        true => {
            to.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            to.write_all(&image.layer)?;
            (0..1000).try_for_each(|_| to.write_all(&[0; 65536]))
        }
        false => image.serve(request, to),
    });
    assert!(refused(&server).contains("sends more than the"));
}

#[test]
fn headers_and_documents_without_end() {
    let server = Server::start(|_, to| {
        to.write_all(b"HTTP/1.1 200 OK\r\n")?;
        (0..).try_for_each(|number| to.write_all(format!("X-{number}: {number}\r\n").as_bytes()))
    });
    assert!(refused(&server).contains("cannot get app:1"));
    let server = Server::start(|_, to| {
        to.write_all(format!("HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\n\r\n").as_bytes())?;
        (0..).try_for_each(|_: u64| to.write_all(&[b' '; 65536]))
    });
    assert!(refused(&server).contains("more than 4194304 bytes"));
}

#[test]
fn media_types_that_confuse() {
    let image = Image::new(10);
    let confused = image.clone();
    let server = Server::start(move |request, to| match request.path.contains("/manifests/") {
        true => answer(to, "200 OK", &[("Content-Type", INDEX)], &confused.manifest),
        false => confused.serve(request, to),
    });
    assert!(refused(&server).contains("CVE-2021-41190"));
    let server = Server::start(|_, to| answer(to, "200 OK", &[("Content-Type", "text/html")], b"<html>"));
    assert!(refused(&server).contains("makes no sense"));
}

#[test]
fn an_index_gives_this_machines_image_and_not_an_attestation() {
    let image = Image::new(1000);
    let child = |bytes: &[u8], os: &str, architecture: &str| {
        let platform = serde_json::json!({"os": os, "architecture": architecture});
        serde_json::json!({"mediaType": MANIFEST, "digest": digest(bytes), "size": bytes.len(), "platform": platform})
    };
    let children = [
        child(b"attestation", "unknown", "unknown"),
        child(b"other", "linux", "s390x"),
        child(&image.manifest, "linux", "amd64"),
    ];
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).to_string();
    let (expected, named) = (image.digest(), digest(index.as_bytes()));
    let server = Server::start(move |request, to| match request.is_for("1") {
        true => answer(to, "200 OK", &[("Content-Type", INDEX)], index.as_bytes()),
        false => image.serve(request, to),
    });
    let (home, name) = (Home::new(), format!("{}/app:1", server.address));
    let done = home.run(&["pull", "--platform", "linux/amd64", "--json", &name]).expect(0);
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&json[0]["image"]["digest"], &json[0]["named"]["digest"]), (&expected.into(), &named.into()));
    assert_eq!(server.count(&digest(b"attestation")), 0);
    let done = Home::new().run(&["pull", "--platform", "linux/riscv64", &name]).expect(125);
    assert!(done.stderr.contains("linux/s390x"), "{}", done.stderr);
}

#[test]
fn images_that_are_too_much() {
    let image = Image::new(10);
    let layers: Vec<Vec<u8>> = (0..4000u32).map(|number| number.to_le_bytes().to_vec()).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let manifest = Image::manifest(&image.config, &layers);
    let server = Server::start(move |_, to| answer(to, "200 OK", &[("Content-Type", MANIFEST)], &manifest));
    assert!(refused(&server).contains("it has 4000 layers; hv takes 1024"));
    let text = String::from_utf8(image.manifest).unwrap();
    let huge = text.replace(&format!("\"size\":{}", image.layer.len()), &format!("\"size\":{}", u64::MAX));
    assert_ne!(huge, text);
    let server =
        Server::start(move |_, to| answer(to, "200 OK", &[("Content-Type", MANIFEST)], huge.as_bytes()));
    assert!(refused(&server).contains("more than 1099511627776 bytes"));
}

#[test]
fn redirects_lead_where_they_may_and_without_credentials() {
    let image = Image::new(1000);
    let (layer, elsewhere) = (image.layer_digest(), image.clone());
    let other = Server::start(move |request, to| elsewhere.serve(request, to));
    let target = format!("http://{}/there/{layer}?signature=x", other.address);
    let server = Server::start(move |request, to| {
        if request.header("authorization") != Some("Basic dTpw") {
            return answer(to, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b"");
        }
        match request.is_for(&image.layer_digest()) {
            true => answer(to, "307 Temporary Redirect", &[("Location", &target)], b""),
            false => image.serve(request, to),
        }
    });
    let home = Home::new();
    home.credentials(&format!(r#"{{"auths": {{"{}": {{"auth": "dTpw"}}}}}}"#, server.address));
    home.run(&["pull", &format!("{}/app", server.address)]).expect(0);
    assert!(home.has(&layer));
    let log = other.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].header("authorization"), None, "credentials are for the registry alone");
}

#[test]
fn redirects_elsewhere_are_refused() {
    // Documentation addresses (RFC 5737): nobody answers there, and nobody is asked.
    for (target, why) in [
        ("http://192.0.2.1/x", "plain-http"),
        ("ftp://192.0.2.1/x", "neither https nor http"),
        ("https://user:secret@192.0.2.1/x", "there is a user in it"),
    ] {
        let image = Image::new(10);
        let server = Server::start(move |request, to| match request.path.contains("/blobs/") {
            true => answer(to, "302 Found", &[("Location", target)], b""),
            false => image.serve(request, to),
        });
        let said = refused(&server);
        assert!(said.contains(why) && !said.contains("secret"), "{said}");
    }
}

#[test]
fn redirects_in_circles_end() {
    let server = Server::start(|request, to| answer(to, "302 Found", &[("Location", &request.path)], b""));
    assert!(refused(&server).contains("redirects more than 5 times"));
    assert!(server.log().len() <= 10, "{}", server.log().len());
}

#[test]
fn mirrors_come_first_and_learn_nothing() {
    let image = Image::new(1000);
    let digest = image.digest();
    let broken = Server::start(|_, to| answer(to, "404 Not Found", &[], b""));
    let mirror = Server::start(move |request, to| image.serve(request, to));
    let home = Home::new();
    home.settings(&format!(
        r#"{{"retries": 0, "mirrors": {{"docker.io": ["{}", "http://{}"]}}}}"#,
        broken.address, mirror.address
    ));
    home.credentials(r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}"#);
    let done = home.run(&["pull", "alpine"]).expect(0);
    assert_eq!(done.text(), format!("docker.io/library/alpine:latest@{digest}\n"));
    assert_eq!(mirror.log()[0].path, "/v2/library/alpine/manifests/latest");
    let all = [broken.log(), mirror.log()].concat();
    assert!(all.iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let image = Image::new(10);
    let attempt = AtomicUsize::new(0);
    let server = Server::start(move |request, to| {
        match request.path.as_str() != "/v2/" && attempt.fetch_add(1, Ordering::SeqCst) < 2 {
            true => answer(to, "429 Too Many Requests", &[("Retry-After", "0")], b""),
            false => image.serve(request, to),
        }
    });
    Home::new().run(&["pull", &format!("{}/app", server.address)]).expect(0);
}
