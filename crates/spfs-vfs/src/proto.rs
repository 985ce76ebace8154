//! What is said over the socket: the messages, the service and the client that are made from `proto/spfs.proto`, which
//! documents them, codes of errors included.
//!
//! [`Client`](crate::client::Client) says it for you.

#![expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; what matters is documented in the .proto file"
)]

tonic::include_proto!("spfs.vfs.v1");
