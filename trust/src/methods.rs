//! The table of who may do what: every method of the API, with the weakest role that may call it.
//!
//! A method that is not in it may be called by nobody: a new one is refused until it is entered here.
//! HTTP routes have the rights of the gRPC method that they stand for.

use crate::role::Role;

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Anybody, without saying who they are.
    Anyone,
    /// Users with this role or a stronger one.
    Role(Role),
    /// Agents, by certificate.
    Agent,
    /// Members, by certificate.
    Node,
    /// Members, and users with this role.
    NodeOr(Role),
}

/// What a token that is limited to namespaces has of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is about runs: each call is checked against the namespace of what it touches, and lists show
    /// only what is in the token's namespaces.
    Namespace,
    /// It tells about the cluster, and nothing of runs: open to limited tokens too.
    Look,
    /// It is about the whole cluster: refused to limited tokens.
    Cluster,
}

/// One method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// `package.Service/Method`; of an HTTP route without one, `http/NAME`.
    pub name: &'static str,
    /// Who may call it.
    pub right: Right,
    /// What limited tokens have of it.
    pub reach: Reach,
    /// It changes something: the audit log has an entry for each call.
    pub mutates: bool,
}

const fn read(name: &'static str, right: Right, reach: Reach) -> Method {
    Method { name, right, reach, mutates: false }
}

const fn write(name: &'static str, right: Right, reach: Reach) -> Method {
    Method { name, right, reach, mutates: true }
}

const VIEWER: Right = Right::Role(Role::Viewer);
const SUBMITTER: Right = Right::Role(Role::Submitter);
const OPERATOR: Right = Right::Role(Role::Operator);
const ADMIN: Right = Right::Role(Role::Admin);

/// Every method.
pub const METHODS: &[Method] = &[
    write("tenon.control.v1.Control/Submit", SUBMITTER, Reach::Namespace),
    read("tenon.control.v1.Control/GetRun", VIEWER, Reach::Namespace),
    read("tenon.control.v1.Control/ListRuns", VIEWER, Reach::Namespace),
    write("tenon.control.v1.Control/CancelRun", SUBMITTER, Reach::Namespace),
    write("tenon.control.v1.Control/RerunRun", SUBMITTER, Reach::Namespace),
    write("tenon.control.v1.Control/ReleaseRun", SUBMITTER, Reach::Namespace),
    read("tenon.control.v1.Control/ExplainRun", VIEWER, Reach::Namespace),
    read("tenon.control.v1.Control/GetRunObjects", VIEWER, Reach::Namespace),
    read("tenon.control.v1.Events/Subscribe", VIEWER, Reach::Namespace),
    write("tenon.control.v1.Cluster/Init", ADMIN, Reach::Cluster),
    read("tenon.control.v1.Cluster/Status", Right::NodeOr(Role::Viewer), Reach::Look),
    write("tenon.control.v1.Cluster/Add", Right::NodeOr(Role::Admin), Reach::Cluster),
    write("tenon.control.v1.Cluster/Remove", ADMIN, Reach::Cluster),
    write("tenon.control.v1.Cluster/Transfer", OPERATOR, Reach::Cluster),
    write("tenon.control.v1.Cluster/Backup", ADMIN, Reach::Cluster),
    read("tenon.control.v1.Cluster/Audit", Right::NodeOr(Role::Admin), Reach::Cluster),
    write("tenon.control.v1.Cluster/Probe", OPERATOR, Reach::Cluster),
    read("tenon.control.v1.Fleet/ListAgents", VIEWER, Reach::Look),
    read("tenon.control.v1.Fleet/GetAgent", VIEWER, Reach::Cluster),
    write("tenon.control.v1.Fleet/CordonAgent", OPERATOR, Reach::Cluster),
    write("tenon.control.v1.Fleet/UncordonAgent", OPERATOR, Reach::Cluster),
    write("tenon.control.v1.Fleet/DrainAgent", OPERATOR, Reach::Cluster),
    write("tenon.control.v1.Fleet/RemoveAgent", OPERATOR, Reach::Cluster),
    write("tenon.control.v1.Trust/Join", Right::Anyone, Reach::Cluster),
    write("tenon.control.v1.Trust/Renew", Right::Agent, Reach::Cluster),
    read("tenon.control.v1.Trust/WhoAmI", VIEWER, Reach::Look),
    write("tenon.control.v1.Trust/CreateToken", ADMIN, Reach::Cluster),
    read("tenon.control.v1.Trust/ListTokens", ADMIN, Reach::Cluster),
    write("tenon.control.v1.Trust/RevokeToken", ADMIN, Reach::Cluster),
    write("tenon.control.v1.Trust/CreateJoinToken", ADMIN, Reach::Cluster),
    read("tenon.control.v1.Trust/ListCertificates", OPERATOR, Reach::Cluster),
    write("tenon.control.v1.Trust/RevokeCertificate", ADMIN, Reach::Cluster),
    read("tenon.agent.v1.Agents/Session", Right::Agent, Reach::Cluster),
    // Chunks change nothing that anybody could see; there are too many of them for the audit log.
    read("tenon.agent.v1.Blobs/Missing", Right::Agent, Reach::Cluster),
    read("tenon.agent.v1.Blobs/Put", Right::Agent, Reach::Cluster),
    read("tenon.agent.v1.Blobs/Get", Right::Agent, Reach::Cluster),
    read("tenon.raft.v1.Peers/Chunks", Right::Node, Reach::Cluster),
    read("tenon.raft.v1.Peers/Exchange", Right::Node, Reach::Cluster),
    read("tenon.raft.v1.Peers/Fetch", Right::Node, Reach::Cluster),
    write("tenon.raft.v1.Peers/Adopt", Right::Node, Reach::Cluster),
    read("grpc.health.v1.Health/Check", Right::Anyone, Reach::Look),
    read("grpc.health.v1.Health/Watch", Right::Anyone, Reach::Look),
    read("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", VIEWER, Reach::Look),
    read("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", VIEWER, Reach::Look),
    read("http/healthz", Right::Anyone, Reach::Look),
    read("http/readyz", Right::Anyone, Reach::Look),
    read("http/metrics", VIEWER, Reach::Cluster),
    read("http/openapi", VIEWER, Reach::Look),
];

/// The entry of a method; `None` for one that nobody may call.
pub fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_there_once() {
        for entry in METHODS {
            assert_eq!(METHODS.iter().filter(|it| it.name == entry.name).count(), 1, "{entry:?}");
            assert_eq!(method(entry.name), Some(entry));
        }
        assert_eq!(method("tenon.control.v1.Control/Forget"), None);
    }

    #[test]
    fn nothing_that_changes_something_is_open_but_joining() {
        let open = METHODS.iter().filter(|it| it.right == Right::Anyone && it.mutates);
        let open: Vec<&str> = open.map(|it| it.name).collect();
        assert_eq!(open, ["tenon.control.v1.Trust/Join"]);
    }
}
