//! Who gets through a handshake, in memory: what rustls makes of our certificates.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};
use tenon_trust::tls::{Anchor, Expect, client, server};
use tenon_trust::{
    Authority, Certificate, Identity, Millis, Request, SharedIdentity, Subject, files,
};

const HOUR: Millis = 3_600_000;

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Millis::try_from(since.as_millis()).unwrap()
}

fn authority() -> Authority {
    Authority::random(now()).unwrap().0
}

fn identity_until(authority: &Authority, subject: &Subject, until: Millis) -> Identity {
    let request = Request::new().unwrap();
    let hosts = ["10.0.0.1".to_owned(), "c1".to_owned()];
    let issued = authority.issue(&request.request, subject, &hosts, until - HOUR, until).unwrap();
    Identity::new(authority.certificate(), &issued, &request.key).unwrap()
}

fn identity(authority: &Authority, subject: &Subject) -> Identity {
    identity_until(authority, subject, now() + HOUR)
}

fn agent(name: &str) -> Subject {
    Subject::Agent(name.to_owned())
}

/// Whom the server takes the client for, or why there is no connection.
fn shake(
    at_server: &Identity,
    anchor: Anchor,
    at_client: Option<&Identity>,
    expect: Expect,
    host: &str,
) -> Result<Option<Subject>, rustls::Error> {
    let at_server = server(&SharedIdentity::new(at_server.clone())).unwrap();
    let at_client = client(anchor, at_client, expect).unwrap();
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let mut one = ClientConnection::new(Arc::new(at_client), host)?;
    let mut other = ServerConnection::new(Arc::new(at_server))?;
    while one.is_handshaking() || other.is_handshaking() || one.wants_write() {
        let mut bytes = Vec::new();
        while one.wants_write() {
            one.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            other.read_tls(&mut rest).unwrap();
            other.process_new_packets()?;
        }
        bytes.clear();
        while other.wants_write() {
            other.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            one.read_tls(&mut rest).unwrap();
            one.process_new_packets()?;
        }
    }
    let shown = other.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.map(|shown| Certificate::of_der(shown).unwrap().subject))
}

#[test]
fn those_of_one_authority_know_each_other() {
    let authority = authority();
    let node = identity(&authority, &Subject::Node(3));
    let a1 = identity(&authority, &agent("a1"));
    let whole = Anchor::pem(authority.certificate()).unwrap();
    let pinned = Anchor::Pinned(authority.fingerprint().unwrap());
    for (name, anchor) in [("whole", whole), ("pinned", pinned)] {
        let agent = shake(&node, anchor.clone(), Some(&a1), Expect::AnyNode, "elsewhere");
        assert_eq!(agent.unwrap(), Some(self::agent("a1")), "{name}");
        let user = shake(&node, anchor.clone(), None, Expect::AnyNode, "192.0.2.7");
        assert_eq!(user.unwrap(), None, "{name}");
        let member = identity(&authority, &Subject::Node(1));
        let member = shake(&node, anchor.clone(), Some(&member), Expect::Node(3), "x");
        assert_eq!(member.unwrap(), Some(Subject::Node(1)), "{name}");
        shake(&node, anchor, Some(&a1), Expect::Node(2), "x").expect_err("it is node 3");
    }
}

#[test]
fn a_foreign_authority_is_refused_at_both_ends() {
    let (authority, other) = (authority(), self::authority());
    let node = identity(&authority, &Subject::Node(1));
    let stranger = identity(&other, &agent("a1"));
    let anchor = Anchor::pem(authority.certificate()).unwrap();
    shake(&node, anchor, Some(&stranger), Expect::AnyNode, "c1").expect_err("a foreign agent");
    for anchor in
        [Anchor::pem(other.certificate()).unwrap(), Anchor::Pinned(other.fingerprint().unwrap())]
    {
        shake(&node, anchor, None, Expect::AnyNode, "c1").expect_err("a foreign node");
    }
}

#[test]
fn expired_certificates_are_refused_at_both_ends() {
    let authority = authority();
    let anchor = || Anchor::pem(authority.certificate()).unwrap();
    let node = identity(&authority, &Subject::Node(1));
    let old = identity_until(&authority, &agent("a1"), now() - HOUR);
    shake(&node, anchor(), Some(&old), Expect::AnyNode, "c1").expect_err("an expired agent");
    let old = identity_until(&authority, &Subject::Node(1), now() - HOUR);
    shake(&old, anchor(), None, Expect::AnyNode, "c1").expect_err("an expired node");
}

#[test]
fn an_agent_cannot_pass_for_a_node() {
    let authority = authority();
    let a1 = identity(&authority, &agent("a1"));
    for host in ["a1", "coordinator.tenon.internal"] {
        let anchor = Anchor::pem(authority.certificate()).unwrap();
        shake(&a1, anchor, None, Expect::AnyNode, host).expect_err("an agent that serves");
    }
    for name in ["", "a/b", "a b", "é", "../node/1"] {
        let request = Request::new().unwrap().request;
        let issued = authority.issue(&request, &agent(name), &[], now(), now() + HOUR);
        assert_eq!(issued.unwrap_err().code(), "invalid/agent-name");
    }
}

#[test]
fn requests_that_are_none_are_refused() {
    let authority = authority();
    let good = Request::new().unwrap().request;
    let half = &good[..good.len() / 2];
    for wrong in
        ["", "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----", half]
    {
        let issued = authority.issue(wrong, &agent("a"), &[], now(), now() + HOUR);
        assert_eq!(issued.unwrap_err().code(), "invalid/certificate-request");
    }
}

#[test]
fn an_authority_signs_again_after_it_was_put_away() {
    let (authority, key) = Authority::random(now()).unwrap();
    let again = Authority::open(authority.certificate(), &key).unwrap();
    let node = identity(&again, &Subject::Node(1));
    let anchor = Anchor::pem(authority.certificate()).unwrap();
    shake(&node, anchor, None, Expect::AnyNode, "c1").unwrap();
    let certificate = node.certificate();
    let made = certificate.until - HOUR;
    assert!(certificate.renew_at() > made + HOUR / 2 && certificate.renew_at() < made + HOUR);
    assert_eq!(certificate.serial.len(), 32);
}

#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("tls");
    assert!(files::read(&dir).unwrap().is_none());
    let authority = authority();
    for name in ["a1", "a2"] {
        let made = identity(&authority, &agent(name));
        files::write(&dir, &made).unwrap();
        let read = files::read(&dir).unwrap().unwrap();
        assert_eq!(read.certificate(), made.certificate());
        // What was read can be written again, and its key stays where it belongs.
        files::write(&dir, &read).unwrap();
    }
    let mode = |name: &str| dir.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("own.key")), (0o700, 0o600));
    assert!(!std::fs::read_to_string(dir.join("own.crt")).unwrap().contains("PRIVATE"));
    assert!(!format!("{:?}", files::read(&dir).unwrap()).contains("PRIVATE"));
}
