//! Compiles the protocol files without protoc.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["coterie/v1/coterie.proto", "coterie/peer/v1/peer.proto", "coterie/admin/v1/admin.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("coterie.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors.clone())?;
    // The service of streams once more, with answers that share what they have in common.
    for file in &mut descriptors.file {
        file.service.retain(|service| service.name() == "Operations");
    }
    let shared = out.join("shared");
    std::fs::create_dir_all(&shared)?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(&shared)
        .extern_path(".coterie", "crate")
        .extern_path(".coterie.v1.ResultBatch", "crate::shared::ResultBatch")
        .compile_fds(descriptors)?;
    Ok(())
}
