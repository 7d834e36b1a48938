//! Which node to try next, and after how long. Pure: it knows no clock and no network.

use std::time::Duration;

/// The shortest pause after every node was tried in vain.
const SHORTEST: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST: Duration = Duration::from_secs(2);

/// The nodes of a cluster in the order in which they are tried.
///
/// A node that works is kept. One that does not is left for the leader that it named, else for the
/// next one; after each round in vain there is a pause that grows, with jitter.
#[derive(Clone, Debug)]
pub struct Route {
    urls: Vec<String>,
    /// Position of the node that is tried next.
    next: usize,
    /// Nodes tried in vain since the last pause.
    tried: usize,
    /// A leader that was named and not yet tried.
    hint: Option<String>,
    /// The node tried last was named as the leader.
    hinted: bool,
    pauses: u32,
    jitter: u64,
}

/// What to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Which node.
    pub url: String,
    /// After this pause.
    pub pause: Duration,
}

impl Route {
    /// A route over these nodes; `seed` decides the jitter.
    ///
    /// With no node at all, every try is one of an empty URL, which no connection can be made to.
    pub fn new(urls: Vec<String>, seed: u64) -> Route {
        Route {
            urls,
            next: 0,
            tried: 0,
            hint: None,
            hinted: false,
            pauses: 0,
            // Xorshift stays 0 for ever once it is.
            jitter: seed | 1,
        }
    }

    /// The nodes that are known.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// What to try next.
    pub fn next_try(&mut self) -> Try {
        if let Some(url) = self.hint.take() {
            self.hinted = true;
            return Try { url, pause: Duration::ZERO };
        }
        self.hinted = false;
        let pause = match self.tried >= self.urls.len().max(1) {
            true => self.pause(),
            false => Duration::ZERO,
        };
        let url = self.urls.get(self.next).cloned().unwrap_or_default();
        Try { url, pause }
    }

    /// The node that was tried last works: it will be tried first the next time.
    pub fn worked(&mut self, url: &str) {
        self.learn([url.to_owned()]);
        self.next = self.urls.iter().position(|known| known == url).unwrap_or(0);
        self.tried = 0;
        self.pauses = 0;
        self.hint = None;
    }

    /// It did not, and perhaps it said who leads.
    pub fn failed(&mut self, url: &str, leader: Option<&str>) {
        let leader = leader.filter(|leader| !leader.is_empty() && *leader != url);
        // A named leader that names another one is believed only after the next node was asked:
        // two that name each other would be asked for ever.
        if let Some(leader) = leader
            && !self.hinted
        {
            self.hint = Some(leader.to_owned());
        }
        if !self.hinted {
            self.tried = self.tried.saturating_add(1);
            self.next = (self.next + 1) % self.urls.len().max(1);
        }
    }

    /// There are these nodes too.
    pub fn learn(&mut self, urls: impl IntoIterator<Item = String>) {
        for url in urls {
            if !url.is_empty() && !self.urls.contains(&url) {
                self.urls.push(url);
            }
        }
    }

    fn pause(&mut self) -> Duration {
        self.tried = 0;
        // Slowly growing: an election takes some tenths of a second, and nobody should sleep long
        // past its end.
        let grown = SHORTEST.mul_f64(1.3_f64.powi(self.pauses.min(30).cast_signed()));
        self.pauses = self.pauses.saturating_add(1);
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let part = (self.jitter % 1024) as f64 / 1024.0;
        grown.min(LONGEST).mul_f64(0.75 + 0.25 * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route::new(["a", "b", "c"].map(str::to_owned).into(), 7)
    }

    fn fail(route: &mut Route, leader: Option<&str>) -> (String, bool) {
        let tried = route.next_try();
        route.failed(&tried.url, leader);
        (tried.url, tried.pause > Duration::ZERO)
    }

    #[test]
    fn a_round_without_a_pause_then_a_growing_one() {
        let mut route = route();
        let tried: Vec<_> = (0..7).map(|_| fail(&mut route, None)).collect();
        let names: String = tried.iter().map(|(url, _)| url.as_str()).collect();
        assert_eq!(names, "abcabca");
        let paused: Vec<usize> = (0..7).filter(|at| tried[*at].1).collect();
        assert_eq!(paused, [3, 6]);
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut route = Route::new(vec!["a".into()], 1);
        let mut pauses = Vec::new();
        for _ in 0..60 {
            let tried = route.next_try();
            pauses.push(tried.pause);
            route.failed(&tried.url, None);
        }
        assert!(pauses[1] <= SHORTEST && pauses[1] >= SHORTEST.mul_f64(0.75));
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[59] >= LONGEST.mul_f64(0.75));
    }

    #[test]
    fn a_named_leader_is_tried_at_once_and_stays_when_it_works() {
        let mut route = route();
        assert_eq!(fail(&mut route, Some("c")), ("a".into(), false));
        assert_eq!(route.next_try(), Try { url: "c".into(), pause: Duration::ZERO });
        route.worked("c");
        assert_eq!(route.next_try().url, "c");
    }

    #[test]
    fn nodes_that_name_each_other_are_not_asked_for_ever() {
        let mut route = route();
        let mut pauses = 0;
        for _ in 0..40 {
            let tried = route.next_try();
            pauses += u32::from(tried.pause > Duration::ZERO);
            let other = if tried.url == "a" { "b" } else { "a" };
            route.failed(&tried.url, Some(other));
        }
        assert!(pauses >= 5, "{pauses}");
    }

    #[test]
    fn a_leader_that_nobody_listed_is_learned() {
        let mut route = route();
        route.worked("d");
        assert_eq!(route.urls(), ["a", "b", "c", "d"]);
        route.learn(["a".to_owned(), String::new(), "e".to_owned()]);
        assert_eq!(route.urls().len(), 5);
    }
}
