//! The Kubernetes metrics APIs of this process: where their objects come from, and by which rules.

use std::path::PathBuf;
use std::sync::Arc;

use metrics_api::Adapter;

use crate::cli::KubernetesApi;
use crate::tools::adapter_rules;

/// What serves custom and external metrics, with the file of its rules.
pub(crate) struct MetricsApis {
    pub(crate) adapter: Arc<Adapter>,
    rules: Option<PathBuf>,
}

impl MetricsApis {
    /// Reads the rules.
    pub(crate) fn new(flags: &KubernetesApi, engine: Arc<promql::Engine>) -> anyhow::Result<Arc<Self>> {
        let this = Self { adapter: Arc::new(Adapter::new(engine)), rules: flags.adapter_rules.clone() };
        this.reload()?;
        Ok(Arc::new(this))
    }

    /// Reads the rules again; those before stay in force if they cannot be used.
    pub(crate) fn reload(&self) -> anyhow::Result<()> {
        if let Some(path) = self.rules.as_deref() {
            self.adapter.set_rules(adapter_rules::load(path)?);
        }
        Ok(())
    }
}
