//! The values of the settings: flags, the environment and `.env`.

use std::{collections::BTreeMap, ffi::OsString, fmt, fs, io};

use super::{Group, SETTINGS};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Flag(&'static str),
    Environment,
    File,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment => f.write_str("environment"),
            Self::File => f.write_str(".env"),
        }
    }
}

/// A mistake in one setting. It contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mistake {
    name: &'static str,
    layer: Option<Layer>,
    problem: String,
}

/// All mistakes in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistakes(Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "todo-server: a setting is wrong:")?,
            count => writeln!(f, "todo-server: {count} settings are wrong:")?,
        }
        for Mistake { name, layer, problem } in &self.0 {
            write!(f, "\n  {name}")?;
            if let Some(layer) = layer {
                write!(f, " ({layer})")?;
            }
            write!(f, ": {problem}")?;
        }
        Ok(())
    }
}

/// Variables that other programs read too, and that are often written in lower case.
const LOWER_CASE: [&str; 2] = ["HTTPS_PROXY", "NO_PROXY"];

/// The values of the settings, and the mistakes found so far.
///
/// A flag has priority over the environment, and the environment has priority over `.env` in the current directory. An
/// empty variable (`NAME=`) cancels the value in `.env`.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    values: BTreeMap<&'static str, (Layer, String)>,
    mistakes: Vec<Mistake>,
    /// Names in `.env` that are no settings, each with the similar name of a setting.
    warnings: Vec<(String, &'static str)>,
}

impl Sources {
    /// Reads the environment of this process and `.env`.
    pub(crate) fn from_process(flags: BTreeMap<&'static str, String>) -> Self {
        let (file, unreadable) = match fs::read_to_string(".env") {
            Ok(text) => (text, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), None),
            Err(error) => (String::new(), Some(error)),
        };
        let mut sources = Self::new(flags, |name| std::env::var_os(name), &file);
        if let Some(error) = unreadable {
            sources.add(".env", None, format!("cannot be read: {error}"));
        }
        sources
    }

    /// Reads these flags, variables and the text of a `.env`.
    pub(crate) fn new(
        mut flags: BTreeMap<&'static str, String>,
        environment: impl Fn(&str) -> Option<OsString>,
        file: &str,
    ) -> Self {
        let mut sources = Self::default();
        let mut file = sources.parse_file(file);
        for setting in SETTINGS {
            let name = setting.name;
            let flag = setting.flag.and_then(|flag| Some((Layer::Flag(flag), Ok(flags.remove(name)?))));
            let lower_case = || environment(&name.to_ascii_lowercase()).filter(|_| LOWER_CASE.contains(&name));
            let variable = || Some((Layer::Environment, environment(name).or_else(lower_case)?.into_string()));
            let line = || Some((Layer::File, Ok(file.remove(name)?)));
            match flag.or_else(variable).or_else(line) {
                Some((layer, Ok(value))) if !value.is_empty() => {
                    if let Some(problem) = wrapping(&value) {
                        sources.add(name, Some(layer), problem);
                    }
                    sources.values.insert(name, (layer, value));
                }
                Some((layer, Err(_))) => sources.add(name, Some(layer), "is not UTF-8"),
                Some((_, Ok(_))) | None => {}
            }
        }
        file.retain(|name, _| SETTINGS.iter().all(|setting| setting.name != name));
        sources.warnings = file.keys().filter_map(|name| Some((name.clone(), similar(name)?))).collect();
        sources
    }

    fn parse_file(&mut self, text: &str) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for pair in dotenvy::from_read_iter(text.as_bytes()) {
            match pair {
                Ok((name, value)) => {
                    values.insert(name, value);
                }
                // The error contains the line, which may contain a secret.
                Err(dotenvy::Error::LineParse(line, _)) => {
                    let first = line.lines().next().unwrap_or_default();
                    let number = text.lines().position(|line| line.ends_with(first)).map_or(0, |at| at + 1);
                    let problem = format!(
                        "line {number} is not NAME=value; put a value with spaces, # or $ into 'single quotes'"
                    );
                    self.add(".env", None, problem);
                }
                Err(_) => self.add(".env", None, "cannot be read"),
            }
        }
        values
    }

    /// The text of a setting, if it is set.
    pub(crate) fn get(&self, name: &'static str) -> Option<&str> {
        debug_assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name} is listed");
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    /// Parses a setting. Returns `None` if it is not set, or if `parse` fails, which adds a mistake.
    pub(crate) fn read<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.get(name)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.reject(name, problem);
                None
            }
        }
    }

    /// Returns the names in `.env` that are no settings, each with the similar name of a setting.
    pub(crate) fn warnings(&self) -> Vec<(String, &'static str)> {
        self.warnings.clone()
    }

    /// Adds a mistake: the setting is wrong or missing.
    pub(crate) fn reject(&mut self, name: &'static str, problem: impl Into<String>) {
        let layer = self.values.get(name).map(|(layer, _)| *layer);
        self.add(name, layer, problem);
    }

    fn add(&mut self, name: &'static str, layer: Option<Layer>, problem: impl Into<String>) {
        self.mistakes.push(Mistake { name, layer, problem: problem.into() });
    }

    /// The names of the settings in these groups that are set.
    pub(crate) fn names_in(&self, groups: &[Group]) -> Vec<&'static str> {
        let settings = SETTINGS.iter().filter(|setting| groups.contains(&setting.group));
        settings.map(|setting| setting.name).filter(|name| self.values.contains_key(name)).collect()
    }

    /// Returns what was read, or all mistakes. `read` may be `None` only if there are mistakes.
    pub(crate) fn finish<T>(self, read: Option<T>) -> Result<T, Mistakes> {
        match read {
            Some(read) if self.mistakes.is_empty() => Ok(read),
            _ => Err(Mistakes(self.mistakes)),
        }
    }
}

/// What is wrong around a value. Whatever wrote it there did not mean it as a part of the value:
/// `docker run --env-file` keeps quotes, `echo secret | base64` keeps the end of the line.
pub(super) fn wrapping(value: &str) -> Option<&'static str> {
    let is_quoted = |quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
    if value.trim() != value {
        return Some("begins or ends with white space; remove it");
    }
    ['"', '\'', '`']
        .into_iter()
        .any(is_quoted)
        .then_some("is in quotes, which would be a part of the value; remove them")
}

/// The setting whose name is nearly this name.
fn similar(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    let differences = |setting: &super::Setting| (strsim::osa_distance(&name, setting.name), setting.name);
    let (differences, setting) = SETTINGS.iter().map(differences).min()?;
    // Short names are similar to many others.
    (differences <= 2 && name.len() > 2 * differences.max(1) + 1).then_some(setting)
}

/// A value for a message: in quotes, at most 80 characters, and without the password of a URL.
pub(crate) fn quoted(value: &str) -> String {
    let masked = match (value.find("://"), value.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}***{}", &value[..scheme + 3], &value[at..]),
        _ => value.to_owned(),
    };
    if masked.chars().count() > 80 {
        format!("{:?}", masked.chars().take(77).chain("...".chars()).collect::<String>())
    } else {
        format!("{masked:?}")
    }
}
