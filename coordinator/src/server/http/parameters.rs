//! The query of a URL. What is not known is refused: a misspelled filter would show too much.

use axum::extract::Query;
use axum::http::Uri;

use super::queries::Parameter;
use crate::intake::did_you_mean;
use crate::server::fault::{Fault, Result};

/// Understood at every route.
const EVERYWHERE: [&str; 1] = ["stale"];

/// Names and values, as they came.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Takes a URL's query apart.
    pub fn parse(uri: &Uri) -> Result<Parameters> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Fault::new("invalid/query", error.body_text()))?;
        Ok(Parameters(query.0))
    }

    /// Faults a name that the route does not know.
    pub fn refuse_unknown(&self, known: &[Parameter]) -> Result<()> {
        let mut names: Vec<&str> = known.iter().map(|it| it.name).collect();
        names.extend(EVERYWHERE);
        match self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                let hint = did_you_mean(name, &names)
                    .unwrap_or_else(|| format!("there are: {}", names.join(", ")));
                Err(Fault::new("invalid/parameter", format!("there is no parameter {name:?} here"))
                    .hint(hint)
                    .field(name))
            }
        }
    }

    /// A value; empty if it is not given.
    pub fn text(&mut self, name: &str) -> Result<String> {
        Ok(self.optional(name)?.unwrap_or_default())
    }

    /// A value, if it is given.
    pub fn optional(&mut self, name: &str) -> Result<Option<String>> {
        let mut values = self.all(name);
        match values.len() {
            0 => Ok(None),
            1 => Ok(values.pop()),
            several => {
                let message = format!("{name} is given {several} times");
                Err(Fault::new("invalid/parameter", message).field(name))
            }
        }
    }

    /// Every value of a name that may come several times.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        self.0.extract_if(.., |(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// Likewise, each with commas between further ones.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        let values = self.all(name);
        let parts = values.iter().flat_map(|value| value.split(','));
        parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// `NAME=VALUE` pairs.
    pub fn pairs(&mut self, name: &str) -> Result<Vec<(String, String)>> {
        let pair = |text: String| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => {
                let message = format!("{name}={text}: not of the form NAME=VALUE");
                Err(Fault::new("invalid/parameter", message).field(name))
            }
        };
        self.all(name).into_iter().map(pair).collect()
    }

    /// A number, if it is given.
    pub fn number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.optional(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Fault::new("invalid/parameter", format!("{name}: {text:?} is no number that fits"))
                .field(name)
        })
    }

    /// Yes or no, if it is given.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        match self.optional(name)?.as_deref() {
            None => Ok(None),
            Some("true" | "1" | "") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => {
                let message = format!("{name}: {other:?} is neither true nor false");
                Err(Fault::new("invalid/parameter", message).field(name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Parameters {
        Parameters::parse(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn values_are_typed() {
        let mut query = parsed("n=7&flag&list=a,b&list=c&p=k%3Dv%26w&bad=x");
        assert_eq!(query.number::<u64>("n").unwrap(), Some(7));
        assert_eq!(query.flag("flag").unwrap(), Some(true));
        assert_eq!(query.list("list"), ["a", "b", "c"]);
        assert_eq!(query.pairs("p").unwrap(), [("k".to_owned(), "v&w".to_owned())]);
        assert_eq!(query.number::<u64>("bad").unwrap_err().code(), "invalid/parameter");
        assert_eq!(query.text("absent").unwrap(), "");
        assert!(parsed("a=1&a=2").optional("a").is_err());
        assert!(parsed("a=perhaps").flag("a").is_err());
        assert!(parsed("p=novalue").pairs("p").is_err());
    }

    #[test]
    fn a_misspelled_name_is_refused_with_the_right_one() {
        let known = [Parameter { name: "namespace", about: "", kind: "string", many: false }];
        let fault = parsed("namespce=x").refuse_unknown(&known).unwrap_err();
        assert_eq!(fault.0.hint, "did you mean \"namespace\"?");
    }
}
