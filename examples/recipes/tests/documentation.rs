//! The pages in Markdown say what the code says: recipes, settings, codes and links.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the folder exists")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The part of a recipe's file that its page shows.
fn recipe(path: &str) -> String {
    let marks =
        if has_extension(Path::new(path), "sql") { ["-- recipe\n", "-- end\n"] } else { ["// recipe\n", "// end\n"] };
    let text = read(path);
    let recipe = text.split_once(marks[0]).and_then(|(_, text)| text.split_once(marks[1]));
    recipe.unwrap_or_else(|| panic!("{path} has a recipe")).0.to_owned()
}

#[test]
fn every_recipe_is_on_its_page_as_it_is_compiled() {
    let page = read("docs/embedding.md");
    let mut shown = BTreeSet::new();
    for part in page.split("<!-- ").skip(1) {
        let (path, rest) = part.split_once(" -->\n```").expect("a path and a code block");
        let code = rest.split_once('\n').and_then(|(_, code)| code.split_once("```")).expect("the block ends").0;
        assert_eq!(code, recipe(path), "{path}");
        shown.insert(path.to_owned());
    }
    let sources = fs::read_dir(root().join("examples/recipes/src")).expect("the folder can be read");
    let names = sources.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    let recipes = names.filter(|name| name != "lib.rs").map(|name| format!("examples/recipes/src/{name}"));
    assert_eq!(shown, recipes.collect());
}

/// The names in capitals that stand in a text like `NAME`.
fn settings_in(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    })
}

#[test]
fn every_setting_is_on_its_page() {
    // A test of the server shows that the example has every setting.
    let example = read(".env.example");
    let named: BTreeSet<_> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#').unwrap_or(line).split_once('='))
        .map(|(name, _)| name)
        .filter(|name| settings_in(&format!("`{name}`")).next().is_some())
        .collect();
    let page = read("docs/settings.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let shown: BTreeSet<_> = rows.flat_map(|row| settings_in(row.split(" | ").next().unwrap_or_default())).collect();
    assert_eq!(shown, named);
}

#[test]
fn every_path_and_code_of_the_document_is_on_the_page_of_the_api() {
    let page = read("docs/api.md");
    let document: Value = serde_json::from_str(&read("openapi.json")).expect("JSON");
    let mut found = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        // The page says of these that they are the same nine.
        if path.contains("{user_id}") {
            continue;
        }
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        for method in
            ["get", "post", "put", "patch", "delete"].iter().filter(|method| operations.get(**method).is_some())
        {
            let row = format!("| {} `{path}` |", method.to_uppercase());
            assert!(page.contains(&row), "{row}");
            found += 1;
        }
    }
    assert!(found >= 10, "{found}");
    let text = document.to_string();
    let codes: BTreeSet<_> = text.split(r#""code":""#).skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(codes.len() >= 15, "{codes:?}");
    for code in codes {
        assert!(page.contains(&format!("`{code}`")), "{code}");
    }
}

/// The pages of this repository.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !["target", "node_modules", ".next", ".git", "vectors"].contains(&name) {
                pages(&path, found);
            }
        } else if has_extension(&path, "md") {
            found.push(path);
        }
    }
}

/// The text without its code blocks.
fn prose(page: &str) -> String {
    page.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
        heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = Vec::new();
    pages(&root(), &mut found);
    assert!(found.len() > 30, "{found:?}");
    let mut broken = Vec::new();
    for page in &found {
        let text = prose(&fs::read_to_string(page).expect("the page can be read"));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { page.clone() } else { page.with_file_name("").join(path) };
            let leads = match anchor {
                None => target.exists(),
                Some(anchor) => fs::read_to_string(&target).is_ok_and(|text| anchors(&prose(&text)).contains(anchor)),
            };
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_file_that_a_page_names_exists() {
    let bases = ["", "todo-core", "todo-core/src", "examples/server", "examples/server/src", "testing"];
    let mut found = Vec::new();
    pages(&root(), &mut found);
    let mut missing = Vec::new();
    for page in found.iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        let text = prose(&fs::read_to_string(page).expect("the page can be read"));
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = name.contains('/') && !name.starts_with(['/', '.']) && !name.contains([' ', '<', ':', '*']);
            let is_file = [".rs", ".sql", ".json", ".yaml", ".yml", ".ts"].iter().any(|end| name.ends_with(end));
            if !is_path || !(is_file || name.starts_with("scripts/")) || name.starts_with("target/") {
                continue;
            }
            let exists =
                bases.iter().any(|base| root().join(base).join(name).exists()) || page.with_file_name(name).exists();
            if !exists {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let folder = root().join("todo-core/src/conformance/store");
    let sources = fs::read_dir(folder).expect("the folder can be read");
    let code: String = sources.map(|file| fs::read_to_string(file.expect("a file").path()).expect("text")).collect();
    let page = prose(&read("docs/guarantees.md"));
    let is_test = |name: &&str| {
        name.matches('_').count() > 1 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let named: Vec<_> = page.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(named.len() > 2, "{named:?}");
    for name in named {
        assert!(code.contains(&format!("fn {name}(")), "{name}");
    }
}
