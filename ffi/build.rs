//! The copy pool and the prefault thread outlive the isolate that loaded the library first. When the last isolate
//! that loaded it goes, its `dlclose` would unmap code those threads still run, so the library asks to stay.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
