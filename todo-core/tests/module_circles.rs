//! No module of the library imports a module that imports it back, directly or through others.
//!
//! Read from the text of `use` declarations. A path counts for the deepest module that has a file; a name that a module
//! re-exports counts for the module that defines it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

type Module = Vec<String>;

/// A declaration: the module that contains it, inline modules included, and the path it names.
struct Use {
    within: Module,
    is_public: bool,
    path: Vec<String>,
}

/// The modules that have a file, with their text.
fn read(folder: &Path, module: &Module, files: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let child = [&module[..], std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            read(&path, &child, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = if ["lib", "mod"].contains(&name.as_str()) { module.clone() } else { child };
            files.insert(module, fs::read_to_string(&path).expect("a text"));
        }
    }
}

/// The declarations in a file. Inline modules are found by the indentation of their braces, which rustfmt sets.
fn declarations(module: &Module, text: &str) -> Vec<Use> {
    let (mut found, mut inline): (Vec<Use>, Vec<(usize, String)>) = (Vec::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        let indentation = line.len() - code.len();
        if code == "}" && inline.last().is_some_and(|(depth, _)| *depth == indentation) {
            inline.pop();
        } else if let Some((_, name)) = code.strip_suffix(" {").and_then(|head| head.split_once("mod "))
            && !code.starts_with("//")
        {
            inline.push((indentation, name.to_owned()));
        }
        let Some((visibility, _)) = code.split_once("use ") else { continue };
        if !(visibility.is_empty() || visibility.starts_with("pub")) {
            continue;
        }
        let mut declaration = code[visibility.len() + 4..].to_owned();
        while !declaration.contains(';') {
            declaration += lines.next().expect("the end of a declaration").trim();
        }
        let within: Module = module.iter().cloned().chain(inline.iter().map(|(_, name)| name.clone())).collect();
        for path in expand(declaration.trim_end_matches(';')) {
            found.push(Use { within: within.clone(), is_public: !visibility.is_empty(), path });
        }
    }
    found
}

/// The paths in `a::{b, c::{d, e as f}}`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((head, list)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(str::to_owned).collect()];
    };
    let list = list.strip_suffix('}').expect("a closed list");
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for character in list.chars() {
        match character {
            ',' if depth == 0 => parts.push(String::new()),
            _ => {
                depth += i32::from(character == '{') - i32::from(character == '}');
                parts.last_mut().expect("one at least").push(character);
            }
        }
    }
    let head: Vec<_> = head.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let tails = parts.iter().filter(|part| !part.trim().is_empty()).flat_map(|part| expand(part));
    tails.map(|tail| [&head[..], &tail].concat()).collect()
}

/// The path from the root of the crate; `None` if it belongs to another crate.
fn absolute(declaration: &Use, files: &BTreeMap<Module, String>) -> Option<Vec<String>> {
    let mut base = declaration.within.clone();
    let mut rest = &declaration.path[..];
    match rest[0].as_str() {
        "crate" => (base, rest) = (Vec::new(), &rest[1..]),
        "self" => rest = &rest[1..],
        "super" => {}
        first => {
            let child = [&base[..], &[first.to_owned()]].concat();
            files.get(&child)?;
        }
    }
    while rest.first().is_some_and(|part| part == "super") {
        base.pop();
        rest = &rest[1..];
    }
    Some([&base[..], rest].concat())
}

/// The deepest module with a file on this path, and the name after it.
fn deepest<'a>(path: &'a [String], files: &BTreeMap<Module, String>) -> (Module, Option<&'a String>) {
    let length = (0..=path.len()).rev().find(|length| files.contains_key(&path[..*length])).unwrap_or(0);
    (path[..length].to_vec(), path.get(length))
}

/// The modules that each module imports.
fn imports(files: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let all: Vec<_> = files.iter().flat_map(|(module, text)| declarations(module, text)).collect();
    let mut exports = BTreeMap::new();
    for declaration in all.iter().filter(|declaration| declaration.is_public) {
        if let (Some(path), Some(name)) = (absolute(declaration, files), declaration.path.last()) {
            exports.insert((declaration.within.clone(), name.clone()), path);
        }
    }
    let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for declaration in all.iter().filter(|declaration| !declaration.is_public) {
        let Some(mut path) = absolute(declaration, files) else { continue };
        let (from, _) = deepest(&declaration.within, files);
        let to = loop {
            let (module, name) = deepest(&path, files);
            match name.and_then(|name| exports.get(&(module.clone(), name.clone()))) {
                Some(exported) if *exported != path => path = exported.clone(),
                _ => break module,
            }
        };
        if from != to {
            imports.entry(from).or_default().insert(to);
        }
    }
    imports
}

/// The modules that lead from a module back to itself, if it is in a circle.
fn circle(start: &Module, imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let (mut ways, mut seen) = (vec![vec![start.clone()]], BTreeSet::new());
    while let Some(way) = ways.pop() {
        for next in way.last().and_then(|last| imports.get(last)).into_iter().flatten() {
            let longer = [&way[..], std::slice::from_ref(next)].concat();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                ways.push(longer);
            }
        }
    }
    None
}

#[test]
fn no_module_imports_one_that_imports_it_back() {
    let mut files = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Vec::new(), &mut files);
    let imports = imports(&files);
    let number: usize = imports.values().map(BTreeSet::len).sum();
    assert!(files.len() > 30 && number > 60, "the files are read: {} modules, {number} imports", files.len());
    let circles = imports.keys().filter_map(|module| circle(module, &imports)).map(|circle| {
        let names: Vec<_> = circle.iter().map(|module| format!("crate::{}", module.join("::"))).collect();
        names.join(" imports ")
    });
    let circles: Vec<_> = circles.collect();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let text = |text: &str| text.to_owned();
    let files = BTreeMap::from([
        (vec![], text("pub use a::A;")),
        (vec![text("a")], text("use crate::{\n    x,\n    b::{B, C as D},\n};")),
        (vec![text("b")], text("mod tests {\n    use super::*;\n    use crate::A;\n}\nuse std::fmt;")),
    ]);
    let imports = imports(&files);
    assert_eq!(circle(&vec![text("a")], &imports).expect("a circle").len(), 3);
    let expected: BTreeSet<Module> = [vec![text("a")]].into();
    assert_eq!(imports[&vec![text("b")]], expected);
}
