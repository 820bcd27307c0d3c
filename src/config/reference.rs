//! The commented reference of the configuration file, from its schema.

use serde_json::{Map, Value};

use super::origin::key;
use super::schema;

/// Characters of a line of a comment.
const WIDTH: usize = 110;
const HEAD: &str = "\
Configuration of nomad-build: every key with its default or, where it has none, with an example.

The file is named by --config or NOMAD_BUILD_CONFIG. Each key with a fixed name can be set by a variable as well,
limits.memory_mb by NOMAD_BUILD_LIMITS_MEMORY_MB (words as they are, lists with commas, tables as in TOML), and by
--set limits.memory_mb=2048. Flags win over variables, variables over the file. `nomad-build config show` prints
each value that holds, and where it comes from.";

/// The text of the file: all keys are commented out, so that it can be used as it is.
pub fn reference() -> String {
    let mut page = Page(String::new());
    page.comment(HEAD);
    page.table(&[], schema::schema());
    page.0
}

struct Page(String);

impl Page {
    fn table(&mut self, path: &[String], node: &Value) {
        let (tables, values): (Vec<_>, Vec<_>) =
            schema::names(node).partition(|(_, inner)| is_table(inner));
        for (name, inner) in values {
            self.0.push('\n');
            self.describe(inner);
            self.setting(name, inner);
        }
        for (name, inner) in tables {
            let path = [path, &[name.to_owned()]].concat();
            self.0.push_str("\n\n");
            self.describe(inner);
            match (inner["type"].as_str(), named(inner)) {
                (Some("array"), _) => {
                    self.0.push_str(&format!("#[[{}]]\n", key(&path)));
                    self.table(&path, &inner["items"]);
                }
                (_, Some((name, value))) if is_table_itself(value) => {
                    self.section(&[path.as_slice(), &[name.to_owned()]].concat(), value);
                }
                (_, Some((name, value))) => {
                    self.0.push_str(&format!("#[{}]\n", key(&path)));
                    self.setting(name, value);
                }
                (_, None) => self.section(&path, inner),
            }
        }
    }

    fn section(&mut self, path: &[String], node: &Value) {
        self.0.push_str(&format!("#[{}]\n", key(path)));
        self.table(path, node);
    }

    fn describe(&mut self, node: &Value) {
        self.comment(node["description"].as_str().unwrap_or_default());
    }

    fn comment(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            let mut line = String::from("#");
            for word in paragraph.split_whitespace() {
                if line.len() > 1 && line.chars().count() + word.chars().count() + 1 > WIDTH {
                    self.0.push_str(&line);
                    self.0.push('\n');
                    line = String::from("#");
                }
                line.push(' ');
                line.push_str(word);
            }
            self.0.push_str(&line);
            self.0.push('\n');
        }
    }

    fn setting(&mut self, name: &str, node: &Value) {
        let name = key(&[name.to_owned()]);
        self.0.push_str(&format!("#{name} = {}\n", shown(node)));
    }
}

/// Whether it has a heading of its own.
fn is_table(node: &Value) -> bool {
    is_table_itself(node) || (node["type"] == "array" && is_table_itself(&node["items"]))
}

fn is_table_itself(node: &Value) -> bool {
    node["type"] == "object"
}

/// An example of a name that the operator chooses, and the schema of what it stands for.
fn named(node: &Value) -> Option<(&str, &Value)> {
    let name = node.pointer("/propertyNames/examples/0")?.as_str()?;
    Some((name, node.get("additionalProperties")?))
}

/// The default, else an example, else any value.
fn shown(node: &Value) -> String {
    let is_something = |value: &&Value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Null => false,
        _ => true,
    };
    let default = node.get("default");
    let example = node["examples"].get(0);
    let value = default.filter(is_something).or(example).or(default);
    value.map_or_else(|| any(node), toml)
}

fn any(node: &Value) -> String {
    if let Some(word) = node["enum"].get(0) {
        return toml(word);
    }
    match node["type"].as_str() {
        Some("boolean") => "false",
        Some("integer") => "1",
        Some("number") => "1.0",
        Some("array") => "[]",
        _ => "\"\"",
    }
    .to_owned()
}

/// JSON writes strings, numbers and lists as TOML does.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(toml).collect();
            format!("[{}]", list.join(", "))
        }
        value => value.to_string(),
    }
}

/// The JSON Schema, for editors.
pub fn json_schema() -> Value {
    let mut root = Map::new();
    root.insert(
        "$schema".into(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    if let Value::Object(schema) = schema::schema().clone() {
        root.extend(schema);
    }
    root.into()
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Given};
    use super::*;

    fn load(text: &str) -> Result<Config, super::super::ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let given = Given {
            file: Some(file.path().to_owned()),
            set: Vec::new(),
        };
        Config::load_from(&given, |_| None).map(|(config, _)| config)
    }

    #[test]
    fn it_is_what_the_program_has_without_a_file() {
        assert_eq!(load(&reference()).unwrap(), load("").unwrap());
    }

    #[test]
    fn its_settings_are_those_of_the_program() {
        let text: String = reference()
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
            .map(|line| format!("{line}\n"))
            .collect();
        // Its files are not on this machine; everything else must be right.
        let faults = load(&text).unwrap_err().0;
        let others: Vec<_> = (faults.iter())
            .filter(|fault| !fault.ends_with("No such file or directory (os error 2)"))
            .collect();
        assert!(others.is_empty(), "{others:#?}\n{text}");
        for path in schema::leaves() {
            let name = path.last().unwrap();
            assert!(
                text.contains(&format!("{name} = "))
                    || text.contains(&format!("[{}", path.join("."))),
                "{path:?}"
            );
        }
    }
}
