//! Compiles the `.proto` files with a pure-Rust compiler, so that no protoc is needed, and gives the
//! messages of the control API their JSON form.

use std::error::Error;
use std::path::PathBuf;

use prost_build::Config;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::{Label, Type};

const FILES: [&str; 8] = [
    "tenon/agent/v1/blobs.proto",
    "tenon/agent/v1/session.proto",
    "tenon/raft/v1/peers.proto",
    "tenon/control/v1/runs.proto",
    "tenon/control/v1/events.proto",
    "tenon/control/v1/cluster.proto",
    "tenon/control/v1/agents.proto",
    "tenon/control/v1/trust.proto",
];

/// Everything of this package can be JSON.
const JSON: &str = "tenon.control.v1";

/// Messages with bytes, which travel as they are over gRPC and have no JSON form.
const NOT_JSON: [&str; 4] = ["EventBatch", "BackupChunk", "ProbeRequest", "BackupRequest"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=tenon");
    let mut files = protox::Compiler::new(["."])?;
    files.include_imports(true).include_source_info(true).open_files(FILES)?;
    let files = files.file_descriptor_set();

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors_without_comments(&files))?;

    let mut config = Config::new();
    config
        .bytes([".tenon.raft.v1", ".tenon.control.v1", ".tenon.agent.v1.PackedChunk"])
        .btree_map([".tenon.control.v1"]);
    json(&files, &mut config);
    config.field_attribute(
        ".tenon.control.v1.ParamValue.value",
        "#[serde(deserialize_with = \"crate::json::text_or_json\")]\n\
         #[schemars(schema_with = \"crate::json::text_or_json_schema\")]",
    );
    let services = tonic_prost_build::configure().codec_path("crate::codec::Codec");
    services.compile_fds_with_config(files, config)?;
    Ok(())
}

/// What reflection serves.
fn descriptors_without_comments(files: &FileDescriptorSet) -> Vec<u8> {
    use prost::Message as _;
    let mut files = files.clone();
    for file in &mut files.file {
        file.source_code_info = None;
    }
    files.encode_to_vec()
}

/// JSON keys are in camelCase. What a request does not say has its default, and what it says too
/// much is refused; an answer leaves out what is absent.
fn json(files: &FileDescriptorSet, config: &mut Config) {
    for file in files.file.iter().filter(|file| file.package() == JSON) {
        for message in file.message_type.iter().filter(|it| !NOT_JSON.contains(&it.name())) {
            let path = format!(".{JSON}.{}", message.name());
            config.message_attribute(
                &path,
                "#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]\n\
                 #[serde(rename_all = \"camelCase\", default)]",
            );
            if message.name().ends_with("Request") || is_part_of_request(message.name()) {
                config.message_attribute(&path, "#[serde(deny_unknown_fields)]");
            }
            for field in &message.field {
                let single = field.label() != Label::Repeated;
                if field.proto3_optional() || single && field.r#type() == Type::Message {
                    config.field_attribute(
                        format!("{path}.{}", field.name()),
                        "#[serde(skip_serializing_if = \"Option::is_none\")]",
                    );
                }
            }
        }
    }
}

fn is_part_of_request(name: &str) -> bool {
    ["ParamValue", "WorkspaceSource", "ManifestFile"].contains(&name)
}
