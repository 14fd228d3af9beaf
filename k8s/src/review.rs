//! Who somebody is and what they may do, asked of the API server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::{Client, Error};

/// Somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// The name: `system:serviceaccount:kube-system:horizontal-pod-autoscaler`.
    #[serde(rename = "username")]
    pub name: String,
    /// Unique for ever, if known.
    pub uid: String,
    /// Groups the user belongs to.
    pub groups: Vec<String>,
    /// What else is known.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AccessRequest {
    /// Something with objects.
    Resource {
        /// `metrics.k8s.io`
        group: String,
        /// `v1beta1`
        version: String,
        /// `pods`
        resource: String,
        /// Empty for the resource itself.
        subresource: String,
        /// Empty for the whole cluster.
        namespace: String,
        /// Empty for all.
        name: String,
        /// `get`, `list`
        verb: String,
    },
    /// Something with a path that stands for no object.
    Path {
        /// The path.
        path: String,
        /// `get`
        verb: String,
    },
}

/// The answer of the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why, in the server's words; often empty.
    pub reason: String,
}

impl Client {
    /// Whose token it is; `None` if it is nobody's.
    ///
    /// # Errors
    /// The API server does not answer, or may not be asked.
    pub async fn review_token(&self, token: &str) -> Result<Option<User>, Error> {
        #[derive(Deserialize)]
        struct Review {
            #[serde(default)]
            status: Status,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Status {
            authenticated: bool,
            user: User,
        }
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
        });
        let review: Review = self.post("/apis/authentication.k8s.io/v1/tokenreviews", &body).await?;
        Ok(review.status.authenticated.then_some(review.status.user))
    }

    /// Whether `user` may do what they want to.
    ///
    /// # Errors
    /// The API server does not answer, or may not be asked.
    pub async fn review_access(&self, user: &User, request: &AccessRequest) -> Result<Verdict, Error> {
        #[derive(Deserialize)]
        struct Review {
            #[serde(default)]
            status: Verdict,
        }
        let mut spec = json!({
            "user": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        });
        match request {
            AccessRequest::Resource { group, version, resource, subresource, namespace, name, verb } => {
                spec["resourceAttributes"] = json!({
                    "group": group, "version": version, "resource": resource, "subresource": subresource,
                    "namespace": namespace, "name": name, "verb": verb,
                });
            }
            AccessRequest::Path { path, verb } => {
                spec["nonResourceAttributes"] = json!({"path": path, "verb": verb});
            }
        }
        let body =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let review: Review = self.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &body).await?;
        Ok(review.status)
    }
}
