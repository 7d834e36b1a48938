//! The agents, so that one with room is found without a look at all of them.
//!
//! Attempts with the same selectors are of one *kind*. The agents that suit a kind and have a free
//! slot stand in lists, by the magnitude of their free CPU and memory, the best first. A list whose
//! magnitudes are above the demand needs no search; one of the same magnitude is searched from its
//! best. Lists are made when the first attempt of a kind asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenon_tekton::pod::Demand;

use super::{Agent, Packing, fit};
use crate::work::{Requirements, Usage};

/// An agent's name, shared.
pub(super) type Name = Arc<str>;
/// The best agent first: how loaded it is, or how free, and its name.
type Rank = (u32, Name);
/// Magnitudes of free CPU and memory.
type Size = (u32, u32);
/// Agents that suit a kind and have a free slot.
type Lists = BTreeMap<Size, BTreeSet<Rank>>;

/// At most so many agents that have an image are looked at for one attempt.
const IMAGE_LOOKS: usize = 32;

/// Which agents suit an attempt, apart from what is free.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    node_selector: BTreeMap<String, String>,
    affinity: Vec<super::Term>,
    /// Only where some agent does not run every image.
    images: BTreeSet<String>,
    demands: BTreeSet<Demand>,
}

#[derive(Clone, Debug)]
struct Entry {
    agent: Agent,
    /// The kinds that it suits.
    kinds: BTreeSet<u64>,
}

/// All agents.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    packing: Packing,
    entries: BTreeMap<Name, Entry>,
    by_label: BTreeMap<(String, String), BTreeSet<Name>>,
    kinds: BTreeMap<Kind, u64>,
    lists: BTreeMap<u64, Lists>,
    next_kind: u64,
    /// Images that somebody asked for, and who has them and a free slot.
    by_image: BTreeMap<String, BTreeSet<Rank>>,
    /// How many agents do not run every image.
    choosy: usize,
    /// How many agents have a free slot and take work.
    open: usize,
}

/// What found no agent in one wave: until something gets free, nothing that asks for as much will.
#[derive(Debug, Default)]
pub(super) struct Failed(BTreeMap<u64, Vec<(u64, u64)>>);

fn magnitude(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

fn size(agent: &Agent) -> Size {
    let (cpu, memory) = fit::free(agent);
    (magnitude(cpu), magnitude(memory))
}

fn is_open(agent: &Agent) -> bool {
    agent.closed.is_none() && agent.used.attempts < agent.slots
}

fn rank(packing: Packing, agent: &Agent, name: &Name) -> Rank {
    let load = fit::load(agent);
    let load = match packing {
        Packing::Spread => load,
        Packing::Pack => 1000 - load,
    };
    (load, name.clone())
}

impl Fleet {
    pub(super) fn new(packing: Packing) -> Fleet {
        Fleet { packing, ..Fleet::default() }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Agent> {
        self.entries.get(name).map(|entry| &entry.agent)
    }

    pub(super) fn agents(&self) -> impl Iterator<Item = (&Name, &Agent)> {
        self.entries.iter().map(|(name, entry)| (name, &entry.agent))
    }

    /// How many agents there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether any agent takes work and has a free slot.
    pub(super) fn has_room(&self) -> bool {
        self.open > 0
    }

    /// Adds an agent, or takes note of what is different about one.
    pub(super) fn set(&mut self, agent: Agent) {
        if let Some((name, entry)) = self.entries.get_key_value(agent.name.as_str()) {
            let before = &entry.agent;
            let stays = before.labels == agent.labels
                && before.allowed_images == agent.allowed_images
                && before.grants == agent.grants
                && before.images == agent.images;
            let name = name.clone();
            if stays {
                self.change(&name, |known| *known = agent);
                return;
            }
            self.remove(&name);
        }
        let name: Name = agent.name.as_str().into();
        for (key, value) in &agent.labels {
            let label = (key.clone(), value.clone());
            self.by_label.entry(label).or_default().insert(name.clone());
        }
        if !agent.allowed_images.is_empty() {
            self.choosy += 1;
            if self.choosy == 1 {
                self.forget_kinds();
            }
        }
        let suits = |kind: &Kind| fit::suits(&agent, &kind.requirements()).is_ok();
        let kinds = self.kinds.iter().filter(|(kind, _)| suits(kind)).map(|(_, id)| *id).collect();
        self.entries.insert(name.clone(), Entry { agent, kinds });
        self.enlist(&name);
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some((name, _)) = self.entries.get_key_value(name) else { return };
        let name = name.clone();
        self.delist(&name);
        let Some(Entry { agent, .. }) = self.entries.remove(&name) else { return };
        for label in agent.labels {
            if let Some(known) = self.by_label.get_mut(&label) {
                known.remove(&name);
                if known.is_empty() {
                    self.by_label.remove(&label);
                }
            }
        }
        if !agent.allowed_images.is_empty() {
            self.choosy -= 1;
            if self.choosy == 0 {
                self.forget_kinds();
            }
        }
    }

    /// What the attempts on an agent take.
    pub(super) fn set_used(&mut self, name: &str, used: Usage) {
        let Some((name, entry)) = self.entries.get_key_value(name) else { return };
        if entry.agent.used != used {
            let name = name.clone();
            self.change(&name, |agent| agent.used = used);
        }
    }

    fn change(&mut self, name: &Name, change: impl FnOnce(&mut Agent)) {
        self.delist(name);
        if let Some(entry) = self.entries.get_mut(name) {
            change(&mut entry.agent);
        }
        self.enlist(name);
    }

    /// Puts an agent into the lists where it belongs.
    fn enlist(&mut self, name: &Name) {
        let Some(entry) = self.entries.get(name).filter(|it| is_open(&it.agent)) else { return };
        self.open += 1;
        let (rank, size) = (rank(self.packing, &entry.agent, name), size(&entry.agent));
        for kind in &entry.kinds {
            if let Some(lists) = self.lists.get_mut(kind) {
                lists.entry(size).or_default().insert(rank.clone());
            }
        }
        for_each_wanted(&mut self.by_image, &entry.agent.images, |holders| {
            holders.insert(rank.clone());
        });
    }

    /// Takes an agent out of the lists where [`Fleet::enlist`] has put it.
    fn delist(&mut self, name: &Name) {
        let Some(entry) = self.entries.get(name).filter(|it| is_open(&it.agent)) else { return };
        self.open -= 1;
        let (rank, size) = (rank(self.packing, &entry.agent, name), size(&entry.agent));
        for kind in &entry.kinds {
            let Some(lists) = self.lists.get_mut(kind) else { continue };
            let Some(list) = lists.get_mut(&size) else { continue };
            list.remove(&rank);
            if list.is_empty() {
                lists.remove(&size);
            }
        }
        for_each_wanted(&mut self.by_image, &entry.agent.images, |holders| {
            holders.remove(&rank);
        });
    }

    fn forget_kinds(&mut self) {
        self.kinds.clear();
        self.lists.clear();
        self.entries.values_mut().for_each(|entry| entry.kinds.clear());
    }

    /// Forgets all lists: those that are still needed are made again.
    pub(super) fn forget_lists(&mut self) {
        self.forget_kinds();
        self.by_image.clear();
    }

    /// How many lists are kept: grows with what was asked for.
    pub(super) fn lists(&self) -> usize {
        self.lists.len() + self.by_image.len()
    }

    /// The number of an attempt's kind; its lists are there.
    fn kind(&mut self, requirements: &Requirements) -> u64 {
        let kind = Kind {
            node_selector: requirements.node_selector.clone(),
            affinity: requirements.affinity.clone(),
            images: match self.choosy {
                0 => BTreeSet::new(),
                _ => requirements.images.clone(),
            },
            demands: requirements.demands.clone(),
        };
        if let Some(id) = self.kinds.get(&kind) {
            return *id;
        }
        let id = self.next_kind;
        self.next_kind += 1;
        let Fleet { entries, by_label, packing, .. } = self;
        let wanted = kind.requirements();
        let mut lists = Lists::new();
        let mut look = |name: &Name, entry: &mut Entry| {
            if fit::suits(&entry.agent, &wanted).is_ok() {
                entry.kinds.insert(id);
                if is_open(&entry.agent) {
                    let rank = rank(*packing, &entry.agent, name);
                    lists.entry(size(&entry.agent)).or_default().insert(rank);
                }
            }
        };
        if kind.node_selector.is_empty() {
            entries.iter_mut().for_each(|(name, entry)| look(name, entry));
        } else {
            // It is enough to look at those who have its rarest label.
            let none = BTreeSet::new();
            let selector = kind.node_selector.iter();
            let having = selector.map(|(key, value)| by_label.get(&(key.clone(), value.clone())));
            let rarest = having.map(|names| names.unwrap_or(&none)).min_by_key(|names| names.len());
            for name in rarest.unwrap_or(&none) {
                if let Some(entry) = entries.get_mut(name) {
                    look(name, entry);
                }
            }
        }
        self.lists.insert(id, lists);
        self.kinds.insert(kind, id);
        id
    }

    /// Has a list of those who have an image.
    fn list_holders(&mut self, image: &str) {
        if self.by_image.contains_key(image) {
            return;
        }
        let has = |entry: &Entry| is_open(&entry.agent) && entry.agent.images.contains(image);
        let holders = self.entries.iter().filter(|(_, entry)| has(entry));
        let holders = holders.map(|(name, entry)| rank(self.packing, &entry.agent, name));
        let holders = holders.collect();
        self.by_image.insert(image.to_owned(), holders);
    }

    /// The best agent with room for an attempt that may go anywhere.
    pub(super) fn choose(
        &mut self,
        requirements: &Requirements,
        reserved: &BTreeMap<Name, crate::AttemptId>,
        failed: &mut Failed,
    ) -> Option<Name> {
        let id = self.kind(requirements);
        let demand = requirements.usage();
        let known = failed.0.get(&id).into_iter().flatten();
        if known.clone().any(|(cpu, mem)| demand.cpu_millis >= *cpu && demand.memory_bytes >= *mem)
        {
            return None;
        }
        requirements.images.iter().for_each(|image| self.list_holders(image));
        let missing_on = |rank: &Rank| {
            let agent = &self.entries[&rank.1].agent;
            let refused = reserved.contains_key(&rank.1);
            let takes = !refused
                && fit::takes_files(agent, requirements)
                && fit::has_room(agent, requirements).is_ok();
            takes.then(|| requirements.images.difference(&agent.images).count())
        };
        let mut best: Option<(usize, &Rank)> = None;
        for image in &requirements.images {
            for rank in self.by_image[image].iter().take(IMAGE_LOOKS) {
                if !self.entries[&rank.1].kinds.contains(&id) {
                    continue;
                }
                let Some(missing) = missing_on(rank) else { continue };
                if best.is_none_or(|best| (missing, rank) < best) {
                    best = Some((missing, rank));
                }
                if missing == 0 {
                    // Those that follow are more loaded.
                    break;
                }
            }
        }
        let least = (magnitude(demand.cpu_millis), magnitude(demand.memory_bytes));
        for (_, list) in self.lists[&id].range(least..).filter(|(size, _)| size.1 >= least.1) {
            let found = list.iter().find_map(|rank| Some((missing_on(rank)?, rank)));
            if let Some(found) = found
                && best.is_none_or(|best| found < best)
            {
                best = Some(found);
            }
        }
        if best.is_none() && requirements.near.is_none() {
            failed.0.entry(id).or_default().push((demand.cpu_millis, demand.memory_bytes));
        }
        best.map(|(_, rank)| rank.1.clone())
    }
}

/// Does something to the list of each image that an agent has and somebody asked for.
fn for_each_wanted(
    by_image: &mut BTreeMap<String, BTreeSet<Rank>>,
    images: &BTreeSet<String>,
    mut act: impl FnMut(&mut BTreeSet<Rank>),
) {
    // By whichever way is shorter.
    if by_image.len() < images.len() {
        by_image.iter_mut().filter(|(it, _)| images.contains(*it)).for_each(|(_, it)| act(it));
    } else {
        for image in images {
            if let Some(holders) = by_image.get_mut(image) {
                act(holders);
            }
        }
    }
}

impl Kind {
    fn requirements(&self) -> Requirements {
        Requirements {
            node_selector: self.node_selector.clone(),
            affinity: self.affinity.clone(),
            images: self.images.clone(),
            demands: self.demands.clone(),
            ..Requirements::default()
        }
    }
}
