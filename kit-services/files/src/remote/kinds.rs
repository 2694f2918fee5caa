//! The types of backends: what each is called and which parameters it takes.
//!
//! The table is `kinds.txt`, a line for each: names of parameters, `?` after those that are yes or
//! no, `#` after numbers, `!` after those that must be given.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kit::{Fault, Route};
use serde_json::{Map, Value, json};

/// Largest value of one parameter: a key or the credentials of a service account.
const VALUE_BYTES: usize = 32 << 10;

/// One type of backends.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// As it stands in the URL.
    pub slug: &'static str,
    pub route: Route,
    /// Whether the rclone of Debian has it. One that has not is connected where the computer has
    /// another rclone, and is not in the document.
    pub packaged: bool,
}

macro_rules! kind {
    ($slug:literal, $name:literal, $packaged:literal) => {
        Kind {
            slug: $slug,
            route: Route::post(concat!("/api/v1/backends/", $slug))
                .named(concat!("connect", $name, "Backend"))
                .cli(concat!("files backends connect ", $slug)),
            packaged: $packaged,
        }
    };
}

pub const KINDS: &[Kind] = &[
    kind!("alias", "Alias", true),
    kind!("azureblob", "Azureblob", true),
    kind!("azurefiles", "Azurefiles", false),
    kind!("b2", "B2", true),
    kind!("box", "Box", true),
    kind!("cache", "Cache", true),
    kind!("chunker", "Chunker", true),
    kind!("cloudinary", "Cloudinary", false),
    kind!("combine", "Combine", true),
    kind!("compress", "Compress", true),
    kind!("crypt", "Crypt", true),
    kind!("drive", "Drive", true),
    kind!("dropbox", "Dropbox", true),
    kind!("fichier", "Fichier", true),
    kind!("filefabric", "Filefabric", true),
    kind!("filescom", "Filescom", false),
    kind!("ftp", "Ftp", true),
    kind!("gofile", "Gofile", false),
    kind!("google-cloud-storage", "GoogleCloudStorage", true),
    kind!("google-photos", "GooglePhotos", true),
    kind!("hasher", "Hasher", true),
    kind!("hdfs", "Hdfs", true),
    kind!("hidrive", "Hidrive", true),
    kind!("http", "Http", true),
    kind!("iclouddrive", "Iclouddrive", false),
    kind!("imagekit", "Imagekit", false),
    kind!("internetarchive", "Internetarchive", true),
    kind!("jottacloud", "Jottacloud", true),
    kind!("koofr", "Koofr", true),
    kind!("linkbox", "Linkbox", false),
    kind!("local", "Local", true),
    kind!("mailru", "Mailru", true),
    kind!("mega", "Mega", false),
    kind!("memory", "Memory", true),
    kind!("netstorage", "Netstorage", true),
    kind!("onedrive", "Onedrive", true),
    kind!("opendrive", "Opendrive", true),
    kind!("oracleobjectstorage", "Oracleobjectstorage", false),
    kind!("pcloud", "Pcloud", true),
    kind!("pikpak", "Pikpak", false),
    kind!("pixeldrain", "Pixeldrain", false),
    kind!("premiumizeme", "Premiumizeme", true),
    kind!("protondrive", "Protondrive", false),
    kind!("putio", "Putio", true),
    kind!("qingstor", "Qingstor", false),
    kind!("quatrix", "Quatrix", false),
    kind!("s3", "S3", true),
    kind!("seafile", "Seafile", true),
    kind!("sftp", "Sftp", true),
    kind!("sharefile", "Sharefile", true),
    kind!("sia", "Sia", true),
    kind!("smb", "Smb", true),
    kind!("storj", "Storj", false),
    kind!("sugarsync", "Sugarsync", true),
    kind!("swift", "Swift", true),
    kind!("tardigrade", "Tardigrade", false),
    kind!("ulozto", "Ulozto", false),
    kind!("union", "Union", true),
    kind!("uptobox", "Uptobox", true),
    kind!("webdav", "Webdav", true),
    kind!("yandex", "Yandex", true),
    kind!("zoho", "Zoho", true),
];

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Flag,
    Number,
}

#[derive(Debug, Default)]
struct Parameters {
    forms: BTreeMap<&'static str, Form>,
    required: Vec<&'static str>,
}

static TABLE: LazyLock<BTreeMap<&'static str, Parameters>> = LazyLock::new(|| {
    let mut table = BTreeMap::new();
    for line in include_str!("kinds.txt").lines() {
        let (slug, words) = line
            .split_once(':')
            .expect("a line of the table has a name");
        let mut parameters = Parameters::default();
        for word in words.split_whitespace() {
            let name = word.trim_end_matches(['?', '#', '!']);
            let form = match &word[name.len()..] {
                marks if marks.contains('?') => Form::Flag,
                marks if marks.contains('#') => Form::Number,
                _ => Form::Text,
            };
            parameters.forms.insert(name, form);
            if word.ends_with('!') {
                parameters.required.push(name);
            }
        }
        table.insert(slug, parameters);
    }
    table
});

/// Parameters by which rclone would start a program of this computer.
const PROGRAMS: &[&str] = &["ssh", "bearer_token_command", "metadata_mapper"];
/// What rclone itself does not know in every type.
const OURS: &str = "description";

/// The type of this name.
pub fn find(slug: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.slug == slug)
}

impl Kind {
    /// What rclone calls it.
    pub fn rclone(&self) -> String {
        self.slug.replace('-', " ")
    }

    fn parameters(&self) -> &'static Parameters {
        TABLE.get(self.slug).expect("every type is in the table")
    }

    /// JSON Schema of its parameters.
    pub fn schema(&self) -> Value {
        let parameters = self.parameters();
        let properties: Map<String, Value> = parameters
            .forms
            .iter()
            .map(|(name, form)| {
                let kind = match form {
                    Form::Text => "string",
                    Form::Flag => "boolean",
                    Form::Number => "number",
                };
                ((*name).to_owned(), json!({ "type": kind }))
            })
            .collect();
        json!({
            "type": "object",
            "title": self.route.id,
            "description": format!(
                "Connect a backend of the type {}.\n\nThe parameters are those of rclone. Nothing is asked \
                 of the server yet; `testBackendConnection` does. Passwords and keys are kept in a file \
                 that only the service reads, and are in no answer.",
                self.slug
            ),
            "properties": properties,
            "required": parameters.required,
        })
    }

    /// The parameters as rclone takes them; `whole` where those that must be given have to be there.
    pub fn check(
        &self,
        given: Map<String, Value>,
        whole: bool,
    ) -> Result<BTreeMap<String, String>, Fault> {
        let parameters = self.parameters();
        let mut checked = BTreeMap::new();
        for (name, value) in given {
            if PROGRAMS.contains(&name.as_str()) && !is_empty(&value) {
                return Err(wrong(&name, "it would start a program of this computer"));
            }
            let Some(form) = parameters.forms.get(name.as_str()) else {
                return Err(wrong(
                    &name,
                    &format!("the type {} has no such parameter", self.slug),
                ));
            };
            if !value.is_null() {
                let text = text(&name, *form, &value)?;
                checked.insert(name, text);
            }
        }
        for name in parameters.required.iter().filter(|_| whole) {
            if checked.get(*name).is_none_or(String::is_empty) {
                return Err(wrong(name, &format!("the type {} needs it", self.slug)));
            }
        }
        Ok(checked)
    }

    /// Refuse a file of this computer: where the service keeps to a directory, rclone would not.
    pub fn refuse_files(&self, parameters: &BTreeMap<String, String>) -> Result<(), Fault> {
        for (name, value) in parameters {
            let file = name.ends_with("_file") || name.ends_with("_path") || name == "unix_socket";
            if file && !value.is_empty() && name != "webdav_path" {
                return Err(wrong(
                    name,
                    "this service keeps to a directory and hands no file to rclone; give the content",
                ));
            }
        }
        Ok(())
    }
}

/// Names that rclone does not know, among those that are not ours.
pub fn unknown<'a>(
    parameters: &'a BTreeMap<String, String>,
    known: &[String],
) -> Option<&'a String> {
    parameters
        .keys()
        .find(|name| *name != OURS && !known.contains(name))
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

pub fn wrong(name: &str, why: &str) -> Fault {
    Fault::bad_request(format!("`{name}` cannot be taken: {why}"))
        .field(format!("/{name}"), why)
        .code("INVALID_PARAMETER")
}

/// One value as it stands in rclone's file, which is lines.
fn text(name: &str, form: Form, value: &Value) -> Result<String, Fault> {
    let text = match (form, value) {
        (_, Value::Bool(value)) if form != Form::Number => value.to_string(),
        (Form::Text | Form::Number, Value::Number(number)) => number.to_string(),
        (_, Value::String(text)) => text.clone(),
        _ => return Err(wrong(name, "it is of another type")),
    };
    match form {
        Form::Flag if !matches!(text.as_str(), "true" | "false") => {
            return Err(wrong(name, "it is true or false"));
        }
        Form::Number if text.parse::<f64>().is_err() => return Err(wrong(name, "it is a number")),
        _ => {}
    }
    line(name, text)
}

/// A text of one line. Keys have theirs written as rclone reads them; JSON needs none.
pub fn line(name: &str, text: String) -> Result<String, Fault> {
    if text.len() > VALUE_BYTES {
        return Err(wrong(
            name,
            &format!("it is longer than {VALUE_BYTES} bytes"),
        ));
    }
    let text = if name == "key_pem" {
        text.trim().replace("\r\n", "\n").replace('\n', "\\n")
    } else if text.contains('\n') && serde_json::from_str::<Value>(&text).is_ok() {
        text.replace(['\n', '\r', '\t'], " ")
    } else {
        text
    };
    if text.chars().any(char::is_control) {
        return Err(wrong(name, "it has line feeds or other control characters"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(slug: &str, given: Value) -> Result<BTreeMap<String, String>, Fault> {
        find(slug)
            .unwrap()
            .check(given.as_object().unwrap().clone(), true)
    }

    #[test]
    fn every_type_is_in_the_table_and_the_table_has_no_other() {
        assert_eq!(KINDS.len(), TABLE.len());
        for kind in KINDS {
            assert!(
                kind.schema()["properties"]["description"].is_object(),
                "{}",
                kind.slug
            );
        }
        assert_eq!(find("google-photos").unwrap().rclone(), "google photos");
    }

    #[test]
    fn values_are_written_as_rclone_reads_them() {
        let pem = "-----BEGIN KEY-----\nabc\n-----END KEY-----\n";
        let taken = check(
            "sftp",
            json!({ "host": "h", "port": 22, "key_pem": pem, "set_modtime": false }),
        )
        .unwrap();
        assert_eq!(taken["port"], "22");
        assert_eq!(taken["set_modtime"], "false");
        assert_eq!(
            taken["key_pem"],
            "-----BEGIN KEY-----\\nabc\\n-----END KEY-----"
        );
        let drive = check("drive", json!({ "token": "{\n \"a\": 1\n}" })).unwrap();
        assert_eq!(drive["token"], "{  \"a\": 1 }");
    }

    #[test]
    fn what_is_no_parameter_or_no_value_is_refused() {
        for (slug, given, names) in [
            ("sftp", json!({}), "host"),
            ("sftp", json!({ "host": "" }), "host"),
            ("sftp", json!({ "host": "h", "wish": "x" }), "wish"),
            ("sftp", json!({ "host": "h", "port": "many" }), "port"),
            (
                "sftp",
                json!({ "host": "h", "use_fstat": "maybe" }),
                "use_fstat",
            ),
            ("sftp", json!({ "host": ["h"] }), "host"),
            // a second section, and a second line, in rclone's file
            ("sftp", json!({ "host": "h\n[evil]\ntype = local" }), "host"),
            ("sftp", json!({ "host": "h", "pass": "a\rb" }), "pass"),
            (
                "sftp",
                json!({ "host": "h", "user": "a".repeat(VALUE_BYTES + 1) }),
                "user",
            ),
            // programs
            ("sftp", json!({ "host": "h", "ssh": "sh -c id" }), "ssh"),
            (
                "webdav",
                json!({ "url": "http://h", "bearer_token_command": "id" }),
                "bearer_token_command",
            ),
        ] {
            let fault = check(slug, given.clone()).expect_err(&given.to_string());
            assert!(fault.message.contains(names), "{given}: {}", fault.message);
        }
    }
}
