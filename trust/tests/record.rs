//! The record of trust: tokens are used once, names are not stolen, what is revoked stays so.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use tenon_trust::{
    ApiToken, Authority, AuthorityRecord, Change, Done, Grant, JoinToken, Kind, Millis, Refusal,
    Role, SecretHash, Token, Trust,
};

const NOW: Millis = 1_800_000_000_000;
const DAY: Millis = 86_400_000;

struct Story {
    trust: Trust,
    next_node: u64,
    now: Millis,
}

impl Story {
    fn begin() -> Story {
        Story { trust: Trust::default(), next_node: 4, now: NOW }
    }

    /// Applies it twice: the answer is the same, and so is the record.
    fn apply(&mut self, change: Change) -> Result<Done, Refusal> {
        let first = self.trust.apply(change.clone(), self.now, &mut self.next_node);
        let (record, next) = (self.trust.clone(), self.next_node);
        let second = self.trust.apply(change, self.now, &mut self.next_node);
        assert_eq!((first, &record, next), (second, &self.trust, self.next_node));
        let text = serde_json::to_string(&self.trust).unwrap();
        assert_eq!(serde_json::from_str::<Trust>(&text).unwrap(), self.trust);
        first
    }

    fn join_token(&mut self, node: bool, agent: Option<&str>) -> Token {
        let token = Token::random(Kind::Join, fingerprint()).unwrap();
        let record = JoinToken {
            node,
            agent: agent.map(str::to_owned),
            hash: SecretHash::of(&token.secret),
            created: self.now,
            expires: self.now + DAY,
            created_by: "ann".to_owned(),
            used: None,
        };
        self.apply(Change::AddJoinToken(token.id.clone(), record)).unwrap();
        token
    }

    fn join(&mut self, token: &Token, agent: &str, serial: &str) -> Result<Done, Refusal> {
        self.apply(Change::JoinAgent {
            token: token.id.clone(),
            hash: token.secret.hash(),
            agent: agent.to_owned(),
            serial: serial.to_owned(),
            until: self.now + 30 * DAY,
        })
    }

    fn join_node(&mut self, token: &Token, by: &str) -> Result<Done, Refusal> {
        let (token, hash) = (token.id.clone(), token.secret.hash());
        self.apply(Change::JoinNode { token, hash, by: by.to_owned() })
    }
}

fn fingerprint() -> tenon_trust::Fingerprint {
    Authority::random(NOW).unwrap().0.fingerprint().unwrap()
}

#[test]
fn a_join_token_lets_one_in_once() {
    let mut story = Story::begin();
    let token = story.join_token(false, None);
    assert_eq!(story.join(&token, "a1", "01"), Ok(Done::Done));
    assert_eq!(story.join(&token, "a2", "02"), Err(Refusal::Used));
    let forged = Token { secret: story.join_token(false, None).secret, ..token.clone() };
    assert_eq!(story.join(&forged, "a2", "02"), Err(Refusal::UnknownToken));

    let late = story.join_token(false, None);
    story.now += DAY;
    assert_eq!(story.join(&late, "a2", "02"), Err(Refusal::Expired));
    // Whoever used one in time, and asks again because the answer was lost, is answered later too.
    assert_eq!(story.join(&token, "a1", "01"), Ok(Done::Done));
    let revoked = story.join_token(false, None);
    story.apply(Change::RemoveToken(revoked.id.clone())).unwrap();
    assert_eq!(story.join(&revoked, "a2", "02"), Err(Refusal::UnknownToken));
}

#[test]
fn nodes_get_ids_and_agents_do_not() {
    let mut story = Story::begin();
    let (node, agent) = (story.join_token(true, None), story.join_token(false, None));
    assert_eq!(story.join_node(&node, "x"), Ok(Done::Node(4)));
    assert_eq!(story.join_node(&node, "y"), Err(Refusal::Used));
    assert_eq!(story.join_node(&agent, "x"), Err(Refusal::Purpose("an agent")));
    let node = story.join_token(true, None);
    assert_eq!(story.join(&node, "a1", "01"), Err(Refusal::Purpose("a coordinator")));
    assert_eq!(story.join_node(&node, "z"), Ok(Done::Node(5)));
}

#[test]
fn a_name_is_taken_over_only_with_a_token_for_it() {
    let mut story = Story::begin();
    let (first, thief) = (story.join_token(false, None), story.join_token(false, None));
    story.join(&first, "a1", "01").unwrap();
    assert_eq!(story.join(&thief, "a1", "02"), Err(Refusal::NameTaken));
    assert!(story.trust.trusts_agent("a1", "01"));
    let other = story.join_token(false, Some("a9"));
    assert_eq!(story.join(&other, "a1", "02"), Err(Refusal::OtherName));
    let wanted = story.join_token(false, Some("a1"));
    assert_eq!(story.join(&wanted, "a1", "03"), Ok(Done::Done));
    assert!(story.trust.trusts_agent("a1", "03") && !story.trust.trusts_agent("a1", "01"));
}

#[test]
fn what_is_revoked_stays_so_until_the_agent_joins_again() {
    let mut story = Story::begin();
    let token = story.join_token(false, None);
    story.join(&token, "a1", "01").unwrap();
    let renew = |with: &str, serial: &str| Change::Renew {
        agent: "a1".to_owned(),
        with: with.to_owned(),
        serial: serial.to_owned(),
        until: NOW + 40 * DAY,
    };
    story.apply(renew("01", "02")).unwrap();
    assert!(story.trust.trusts_agent("a1", "01") && story.trust.trusts_agent("a1", "02"));
    story.apply(Change::Revoke { agent: "a1".to_owned() }).unwrap();
    // Also one that this record never heard of.
    for serial in ["01", "02", "77"] {
        assert!(!story.trust.trusts_agent("a1", serial));
        assert_eq!(story.apply(renew(serial, "03")), Err(Refusal::Revoked));
    }
    let again = story.join_token(false, None);
    story.join(&again, "a1", "04").unwrap();
    assert!(story.trust.trusts_agent("a1", "04") && !story.trust.trusts_agent("a1", "02"));
    let nobody = Change::Revoke { agent: "a2".to_owned() };
    assert_eq!(story.apply(nobody), Err(Refusal::UnknownAgent));
}

#[test]
fn api_tokens_are_good_until_they_expire_or_are_revoked() {
    let mut story = Story::begin();
    let token = Token::random(Kind::Api, fingerprint()).unwrap();
    let record = ApiToken {
        name: "ci".to_owned(),
        hash: SecretHash::of(&token.secret),
        grant: Grant { role: Role::Submitter, namespaces: ["web".to_owned()].into() },
        created: NOW,
        expires: Some(NOW + DAY),
        created_by: "ann".to_owned(),
    };
    story.apply(Change::AddToken(token.id.clone(), record.clone())).unwrap();
    assert_eq!(story.trust.api_token(&token, NOW), Some(&record));
    assert!(record.grant.covers("web") && !record.grant.covers("db"));
    assert_eq!(story.trust.api_token(&token, NOW + DAY), None);
    let other = Token::random(Kind::Api, fingerprint()).unwrap();
    let forged = Token { secret: other.secret, ..token.clone() };
    assert_eq!(story.trust.api_token(&forged, NOW), None);
    assert!(story.trust.token_stands(&token.id, NOW));
    story.apply(Change::RemoveToken(token.id.clone())).unwrap();
    assert_eq!(story.trust.api_token(&token, NOW), None);
    assert!(!story.trust.token_stands(&token.id, NOW));
    let text = serde_json::to_string(&story.trust).unwrap();
    assert!(!text.contains(token.reveal().split('_').nth(2).unwrap()));
}

#[test]
fn a_cluster_has_one_authority() {
    let mut story = Story::begin();
    let record =
        |name: &str| AuthorityRecord { certificate: name.to_owned(), sealed_key: "00".to_owned() };
    story.apply(Change::Found(record("one"))).unwrap();
    assert_eq!(story.apply(Change::Found(record("two"))), Err(Refusal::Founded));
}

#[test]
fn the_record_does_not_grow_for_ever() {
    let mut story = Story::begin();
    for number in 0..20 {
        let token = story.join_token(false, None);
        story.join(&token, &format!("a{number}"), &format!("{number:02}")).unwrap();
    }
    story.now += 40 * DAY;
    story.join_token(true, None);
    assert_eq!(story.trust.join_tokens.len(), 1);
    assert!(story.trust.agents.values().all(|agent| agent.serials.is_empty()));
}
