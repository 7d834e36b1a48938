//! Remarks that come at any time: on stderr, or in a live display that they must not disturb.

use std::sync::{Arc, Mutex, PoisonError};

use crate::terminal;

/// Where remarks go now.
#[derive(Default)]
pub struct Voice {
    display: Mutex<Option<Arc<Mutex<String>>>>,
}

impl Voice {
    /// Tells the user.
    pub fn say(&self, text: &str) {
        let display = self.display.lock().unwrap_or_else(PoisonError::into_inner);
        match &*display {
            Some(note) => {
                text.clone_into(&mut note.lock().unwrap_or_else(PoisonError::into_inner));
            }
            None => terminal::note(text),
        }
    }

    /// From now on remarks are notes of a live display; with `None` on stderr again.
    pub fn speak_into(&self, display: Option<Arc<Mutex<String>>>) {
        *self.display.lock().unwrap_or_else(PoisonError::into_inner) = display;
    }
}
