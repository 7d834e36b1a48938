//! The way from the root of a document to a value, kept on the stack and made text only when there is
//! a fault to tell.

/// The way from the root to a value, as a list on the stack.
pub(super) enum Path<'p> {
    Root,
    /// A field of a struct, by its proper name.
    Field(&'p Path<'p>, &'p str),
    /// A key of a map.
    Key(&'p Path<'p>, &'p str),
    /// An item of a sequence.
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    /// `spec.steps[0].image`
    pub(super) fn shown(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field(parent, name) | Path::Key(parent, name) => {
                let mut text = parent.shown();
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
                text
            }
            Path::Index(parent, index) => format!("{}[{index}]", parent.shown()),
        }
    }

    /// `spec.steps.image`: the struct fields alone, as Go's messages have it.
    pub(super) fn go(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field(parent, name) => {
                let mut text = parent.go();
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
                text
            }
            Path::Key(parent, _) | Path::Index(parent, _) => parent.go(),
        }
    }

    /// The name of the nearest struct field.
    pub(super) fn field(&self) -> &str {
        match self {
            Path::Root => "",
            Path::Field(_, name) => name,
            Path::Key(parent, _) | Path::Index(parent, _) => parent.field(),
        }
    }
}
