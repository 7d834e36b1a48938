//! The documents of a submission, found by kind and name.

use std::collections::HashMap;

use super::Document;

/// All documents of the sources, in order, with look-ups.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// In the order of the sources and of the documents in each.
    pub documents: Vec<Document>,
    by_name: HashMap<(&'static str, String), usize>,
}

impl Bundle {
    /// Adds a document, unless one of the same kind and name is there already: then that one's
    /// place is the error. Objects without a name (`generateName`) never collide.
    pub fn insert(&mut self, document: Document) -> Result<(), (Box<Document>, &Document)> {
        let kind = document.object.kind();
        let name = document.name().to_owned();
        if !name.is_empty() {
            if let Some(&at) = self.by_name.get(&(kind, name.clone())) {
                return Err((Box::new(document), &self.documents[at]));
            }
            self.by_name.insert((kind, name), self.documents.len());
        }
        self.documents.push(document);
        Ok(())
    }

    /// The document of this kind (`Task`, `Pipeline`, `Secret`, …) and `metadata.name`.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Document> {
        let kind = crate::object::KINDS.iter().find(|known| **known == kind)?;
        let at = self.by_name.get(&(*kind, name.to_owned()))?;
        self.documents.get(*at)
    }

    /// All documents of a kind, in order.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Document> + 'a {
        self.documents.iter().filter(move |document| document.object.kind() == kind)
    }
}

impl Document {
    /// `metadata.name` as written, empty if there is none.
    pub fn name(&self) -> &str {
        match self.object.metadata() {
            Some(metadata) => &metadata.name,
            None => {
                let metadata = self.root.get("metadata");
                let name = metadata.and_then(|metadata| metadata.get("name"));
                name.and_then(|name| name.as_str()).unwrap_or_default()
            }
        }
    }
}
