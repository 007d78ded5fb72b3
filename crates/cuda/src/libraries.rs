//! Finding the libraries. Each is tried by its plain name, as the system's loader would, then in the usual folders and in
//! those of Python wheels (`site-packages/nvidia/*/lib`). One that was opened by its path stays open, and is then what the
//! loader finds under the plain name: that is how the bindings of `cudarc`, which know no paths, get to it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Library {
    Driver,
    /// What NVRTC reads its own headers from; it does not find it by itself when it was opened by path.
    NvrtcBuiltins,
    Nvrtc,
    CublasLt,
    Cudnn,
    Nccl,
}

impl Library {
    pub fn title(self) -> &'static str {
        match self {
            Self::Driver => "the NVIDIA driver",
            Self::NvrtcBuiltins => "NVRTC's builtins",
            Self::Nvrtc => "NVRTC",
            Self::CublasLt => "cuBLASLt",
            Self::Cudnn => "cuDNN",
            Self::Nccl => "NCCL",
        }
    }

    fn file_names(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1", "libcuda.so"],
            Self::NvrtcBuiltins => &["libnvrtc-builtins.so.13.0"],
            Self::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so"],
            Self::CublasLt => &["libcublasLt.so.13", "libcublasLt.so"],
            Self::Cudnn => &["libcudnn.so.9", "libcudnn.so"],
            Self::Nccl => &["libnccl.so.2", "libnccl.so"],
        }
    }

    pub(crate) fn names(self) -> String {
        self.file_names().join(" or ")
    }
}

/// An open library, for the life of the process.
pub(crate) struct Opened {
    pub library: libloading::Library,
    /// Its file, or the plain name that the system's loader resolved.
    pub origin: PathBuf,
}

/// Opens `which`, once.
pub(crate) fn open(which: Library) -> Option<&'static Opened> {
    static OPENED: OnceLock<Mutex<HashMap<Library, Option<&'static Opened>>>> = OnceLock::new();
    if which == Library::Nvrtc {
        open(Library::NvrtcBuiltins);
    }
    let mut opened = OPENED
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    *opened.entry(which).or_insert_with(|| {
        let names = which.file_names().iter().map(PathBuf::from);
        let folders = folders();
        let files = folders
            .iter()
            .flat_map(|folder| which.file_names().iter().map(|name| folder.join(name)))
            .filter(|file| file.is_file());
        names.chain(files).find_map(|origin| {
            // SAFETY: these are NVIDIA's libraries, whose initialisers have no preconditions; they are never closed.
            let library = unsafe { libloading::Library::new(&origin) }.ok()?;
            Some(&*Box::leak(Box::new(Opened { library, origin })))
        })
    })
}

static MORE_FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Libraries that were not looked for yet are also looked for in `folder`.
pub fn look_in(folder: &Path) {
    let mut folders = MORE_FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    folders.push(folder.to_path_buf());
}

/// Folders in which to look, the user's own choice first.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PRIMA_CUDA_LIBRARIES")
        .map(|list| std::env::split_paths(&list).collect())
        .unwrap_or_default();
    folders.extend_from_slice(&MORE_FOLDERS.lock().unwrap_or_else(PoisonError::into_inner));
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        folders.extend(std::env::var_os(variable).map(|root| Path::new(&root).join("lib64")));
    }
    folders.push("/usr/local/cuda/lib64".into());
    folders.extend(python_prefixes().iter().flat_map(|prefix| wheel_folders(prefix)));
    folders
}

/// Where Python environments may be: the active one, and that of the `python3` in PATH.
fn python_prefixes() -> Vec<PathBuf> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(std::env::var_os);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path)
        .filter(|folder| folder.join("python3").exists())
        .filter_map(|folder| Some(folder.parent()?.to_path_buf()));
    active.map(PathBuf::from).chain(on_path).collect()
}

/// `PREFIX/lib/python3*/{site,dist}-packages/nvidia/*/lib`.
fn wheel_folders(prefix: &Path) -> Vec<PathBuf> {
    let children = |folder: &Path| -> Vec<PathBuf> {
        let mut children: Vec<PathBuf> = std::fs::read_dir(folder)
            .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
            .unwrap_or_default();
        children.sort();
        children
    };
    let pythons = children(&prefix.join("lib")).into_iter().filter(|folder| {
        folder
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("python3"))
    });
    pythons
        .flat_map(|python| ["site-packages", "dist-packages"].map(|packages| python.join(packages).join("nvidia")))
        .flat_map(|nvidia| children(&nvidia))
        .map(|package| package.join("lib"))
        .filter(|lib| lib.is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_python_wheels_are_found() {
        let root = std::env::temp_dir().join(format!("prima-wheels-{}", std::process::id()));
        for folder in ["cudnn/lib", "cu13/lib", "cu13/include"] {
            std::fs::create_dir_all(root.join("lib/python3.12/site-packages/nvidia").join(folder)).unwrap();
        }
        let found = wheel_folders(&root);
        std::fs::remove_dir_all(&root).unwrap();
        let packages = root.join("lib/python3.12/site-packages/nvidia");
        assert_eq!(found, [packages.join("cu13/lib"), packages.join("cudnn/lib")]);
    }
}
