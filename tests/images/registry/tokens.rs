//! Who the user is: only the registry learns it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::Home;
use super::server::{Image, Server, answer};
use crate::support::finish;

/// A registry that wants a token from the service at this realm.
fn wants_token(realm: String, image: Image) -> Server {
    Server::start(move |request, to| {
        if request.header("authorization") == Some("Bearer good") {
            return image.serve(request, to);
        }
        let challenge =
            format!("Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:app:pull\"");
        answer(to, "401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"")
    })
}

fn with_password(server: &Server) -> Home {
    let home = Home::new();
    home.credentials(&format!(r#"{{"auths": {{"{}": {{"auth": "dTpw"}}}}}}"#, server.address));
    home
}

#[test]
fn a_token_is_got_once_for_all_requests() {
    let tokens = Server::start(|request, to| match request.header("authorization") {
        Some("Basic dTpw") => answer(to, "200 OK", &[], br#"{"token": "good", "expires_in": 300}"#),
        _ => answer(to, "401 Unauthorized", &[], b""),
    });
    let server = wants_token(format!("http://{}/token", tokens.address), Image::new(1000));
    let name = format!("{}/app", server.address);
    with_password(&server).run(&["pull", &name]).expect(0);
    let log = tokens.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].path, "/token?service=the%20registry&scope=repository%3Aapp%3Apull");
    let done = Home::new().run(&["pull", &name]).expect(125);
    assert!(
        done.stderr.contains(&format!(
            "hint: if there is such an image and it is not for everybody: hv login {}",
            server.address
        )),
        "{}",
        done.stderr
    );
}

#[test]
fn realms_elsewhere_are_not_asked() {
    for realm in
        ["http://192.0.2.1/token", "http://example.com/", "file:///etc/passwd", "https://a:b@192.0.2.1/"]
    {
        let server = wants_token(realm.into(), Image::new(10));
        let done = with_password(&server).run(&["pull", &format!("{}/app", server.address)]).expect(125);
        assert!(done.stderr.contains("token service"), "{realm}: {}", done.stderr);
    }
    let server = wants_token("https://192.0.2.1/token".into(), Image::new(10));
    let done = with_password(&server).run(&["pull", &format!("{}/app", server.address)]).expect(125);
    assert!(done.stderr.contains("would get the password"), "{}", done.stderr);
}

#[test]
fn tokens_that_are_none() {
    for token in [r#"{"token": "a\r\nX: y"}"#, r#"{"token": ""}"#, "{}", "<html>"] {
        let tokens = Server::start(move |_, to| answer(to, "200 OK", &[], token.as_bytes()));
        let server = wants_token(format!("http://{}/token", tokens.address), Image::new(10));
        let done = Home::new().run(&["pull", &format!("{}/app", server.address)]).expect(125);
        assert!(done.stderr.contains("something else than a token"), "{token}: {}", done.stderr);
    }
}

#[test]
fn challenges_in_circles_end() {
    let tokens = Server::start(|_, to| answer(to, "200 OK", &[], br#"{"token": "bad"}"#));
    let server = wants_token(format!("http://{}/token", tokens.address), Image::new(10));
    Home::new().run(&["pull", &format!("{}/app", server.address)]).expect(125);
    assert!(server.log().len() <= 2 && tokens.log().len() <= 2);
}

#[test]
fn an_identity_token_is_exchanged() {
    let tokens = Server::start(|request, to| match request.method.as_str() {
        "POST" => answer(to, "200 OK", &[], br#"{"access_token": "good"}"#),
        _ => answer(to, "405 Method Not Allowed", &[], b""),
    });
    let server = wants_token(format!("http://{}/token", tokens.address), Image::new(10));
    let home = Home::new();
    home.credentials(&format!(r#"{{"auths": {{"{}": {{"identitytoken": "t"}}}}}}"#, server.address));
    home.run(&["pull", &format!("{}/app", server.address)]).expect(0);
}

/// A registry that takes `u` with the password `p`.
fn basic() -> Server {
    let image = Image::new(10);
    Server::start(move |request, to| match request.header("authorization") {
        Some("Basic dTpw") => image.serve(request, to),
        _ => answer(to, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b""),
    })
}

#[test]
fn login_is_tried_and_kept_and_logout_forgets() {
    let (home, server) = (Home::new(), basic());
    let name = format!("{}/app", server.address);
    let login = |password: &[u8]| {
        finish(home.hv(&["login", &server.address, "--user", "u", "--password-stdin"]), password)
    };
    let wrong = login(b"wrong\n").expect(125);
    assert!(wrong.stderr.contains("nothing was kept"), "{}", wrong.stderr);
    home.run(&["pull", &name]).expect(125);
    login(b"p\n").expect(0);
    let path = home.path().join("docker/config.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    home.run(&["pull", &name]).expect(0);
    home.run(&["logout", &server.address]).expect(0);
    assert!(!fs::read_to_string(&path).unwrap().contains("dTpw"));
    home.run(&["pull", &name]).expect(125);
}

#[test]
fn a_helper_keeps_them_where_config_json_names_one() {
    let (home, server) = (Home::new(), basic());
    home.credentials(r#"{"credsStore": "test"}"#);
    let helper = home.path().join("docker-credential-test");
    let script = "#!/bin/sh\nset -e\nkept=$HOME/kept\ncase $1 in\n\
        store) cat > $kept;;\n\
        get) cat > /dev/null; test -e $kept || { echo 'credentials not found in native keychain'; exit 1; }; cat $kept;;\n\
        erase) cat > /dev/null; rm $kept;;\nesac\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
    let run = |args: &[&str], stdin: &[u8]| {
        let mut command = home.hv(args);
        command.env("PATH", &path);
        finish(command, stdin)
    };
    let name = format!("{}/app", server.address);
    run(&["pull", &name], b"").expect(125);
    let done = run(&["login", &server.address, "-u", "u", "--password-stdin"], b"p").expect(0);
    assert!(done.text().contains("docker-credential-test keeps it"), "{}", done.text());
    assert!(!fs::read_to_string(home.path().join("docker/config.json")).unwrap().contains("dTpw"));
    run(&["pull", &name], b"").expect(0);
    run(&["logout", &server.address], b"").expect(0);
    assert!(!home.path().join("kept").exists());
}

#[test]
fn config_json_is_parsed_with_care() {
    let (home, server) = (Home::new(), basic());
    let name = format!("{}/app", server.address);
    for (config, why) in [("{", "is not understood"), (r#"{"credsStore": "../x"}"#, "no program")] {
        home.credentials(config);
        let done = home.run(&["pull", &name]).expect(125);
        assert!(done.stderr.contains(why), "{}", done.stderr);
    }
}
