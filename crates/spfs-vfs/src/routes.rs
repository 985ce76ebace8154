//! Stand-in until the library's router is merged: the same contract, by asking every tree.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pidigree::{Identity, Pid, Process, Result, Tree};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    Thread(Pid),
    Kernel,
}

pub(crate) struct Router<V> {
    routes: Mutex<Vec<(Arc<Tree>, Arc<V>)>>,
}

impl<V> Router<V> {
    pub(crate) fn new() -> Result<Router<V>> {
        Ok(Router { routes: Mutex::default() })
    }

    pub(crate) fn insert(&self, root: &Process, value: V) -> Result<()> {
        let tree = Tree::attach(root)?;
        self.routes.lock().unwrap().push((Arc::new(tree), Arc::new(value)));
        Ok(())
    }

    pub(crate) fn resolve(&self, caller: Caller) -> Result<Option<Arc<V>>> {
        let Caller::Thread(tid) = caller else { return Ok(None) };
        let process = Process::from_thread(tid)?;
        for (tree, value) in self.routes.lock().unwrap().iter().rev() {
            if tree.contains(process.pid())? {
                return Ok(Some(value.clone()));
            }
        }
        Ok(None)
    }

    pub(crate) fn members(&self, root: &Identity) -> Result<Option<Vec<Identity>>> {
        Ok(self
            .routes
            .lock()
            .unwrap()
            .iter()
            .find(|(tree, _)| tree.root() == *root)
            .map(|(tree, _)| tree.members()))
    }

    pub(crate) fn remove(&self, root: &Identity) -> Option<Arc<V>> {
        let mut routes = self.routes.lock().unwrap();
        let index = routes.iter().position(|(tree, _)| tree.root() == *root)?;
        Some(routes.remove(index).1)
    }

    pub(crate) fn next_emptied(&self, timeout: Option<Duration>) -> Result<Option<(Identity, Arc<V>)>> {
        let begun = Instant::now();
        loop {
            let mut routes = self.routes.lock().unwrap();
            if let Some(index) = routes.iter().position(|(tree, _)| tree.is_empty()) {
                let (tree, value) = routes.remove(index);
                return Ok(Some((tree.root(), value)));
            }
            drop(routes);
            if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
