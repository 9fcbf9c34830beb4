//! Finds the programs that tests run. `scripts/setup` installs those that are missing.

use std::{
    env,
    path::{Path, PathBuf},
};

/// All places of a program, best first: the folders in `PATH`, `/usr/sbin`, and `tools/bin` in the folder of the build,
/// where `scripts/setup` puts programs that it does not install.
#[must_use]
pub fn all(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let test = env::current_exe().unwrap_or_default();
    let beside = test.ancestors().map(|folder| folder.join("tools/bin"));
    let folders = env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]).chain(beside);
    folders.map(|folder| folder.join(name)).filter(|program| program.is_file()).collect()
}

/// The best place of a program.
///
/// # Panics
///
/// If the program is missing; the message says what to run.
#[must_use]
pub fn find(name: &str) -> PathBuf {
    let found = all(name).into_iter().next();
    found.unwrap_or_else(|| panic!("the program {name} is missing; run scripts/setup, which installs it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_path() {
        assert!(find("sh").is_file());
        assert_eq!(all("no-such-program"), <[PathBuf; 0]>::default());
    }

    #[test]
    #[should_panic = "run scripts/setup"]
    fn a_missing_program_is_reported() {
        let _ = find("no-such-program");
    }
}
