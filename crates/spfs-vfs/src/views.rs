//! Which process trees there are, and what each of them sees.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use pidigree::{Caller, Identity, Process, Router};

use crate::layers::{Directory, Stack};
use crate::{Error, sys};

/// The number of a view, which is its name below `views`. It is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(u64);

/// To whom a view belongs: nobody else (root aside) can enter it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group, which has no rights by that.
    pub gid: u32,
}

/// What there is to say of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewInfo {
    /// Its number.
    pub id: ViewId,
    /// The root of the process tree that sees it.
    pub root: Identity,
    /// Its layers, upper first, as they were given.
    pub layers: Vec<PathBuf>,
    /// To whom it belongs.
    pub owner: Owner,
    /// When it was added.
    pub since: SystemTime,
}

/// What is shown to whom: process trees and their stacks of layers. Cheap to clone; all clones are one.
///
/// A [`Mount`](crate::Mount) shows them, and a service adds and removes them meanwhile.
#[derive(Clone)]
pub struct Views(Arc<Shared>);

struct Shared {
    router: Router<Arc<View>>,
    table: RwLock<BTreeMap<ViewId, Arc<View>>>,
    next_view: AtomicU64,
    numbers: Arc<AtomicU64>,
    audience: Mutex<Vec<Weak<dyn Audience>>>,
}

/// Whoever has to know of views that leave: mounts.
pub(crate) trait Audience: Send + Sync {
    /// The view is gone, and no request finds it any more.
    fn withdrawn(&self, id: ViewId);

    /// The device number of the mount: no layer may lie on it.
    fn device(&self) -> u64;
}

impl Views {
    /// Returns an empty set of views. This raises the soft limit of open files: each layer of each view takes one.
    ///
    /// # Errors
    ///
    /// Processes cannot be followed here; the error says why.
    pub fn new() -> Result<Views, Error> {
        // Before the router takes its share of it
        sys::raise_file_limit();
        let router = Router::new();
        Ok(Views(Arc::new(Shared {
            router,
            table: RwLock::default(),
            next_view: AtomicU64::new(1),
            numbers: Arc::new(AtomicU64::new(FIRST_FREE)),
            audience: Mutex::default(),
        })))
    }

    /// Shows a stack of layers (upper first) to a process and to all that it starts, until the last of them has ended.
    ///
    /// When this returns, the tree is followed and `self` leads it into the new view. What runs in another view already, or has
    /// descendants that do, keeps what is nearest: trees may be nested. Only `owner` can enter the view by its number.
    ///
    /// # Errors
    ///
    /// - [`is_gone`](Error::is_gone): the process has ended.
    /// - [`is_already_routed`](Error::is_already_routed): it has a view.
    /// - [`is_invalid`](Error::is_invalid): there is no layer, or one is no directory.
    /// - [`is_limit`](Error::is_limit): no descriptor is free.
    pub fn add(&self, root: &Process, layers: &[PathBuf], owner: Owner) -> Result<ViewId, Error> {
        let stack = Stack::open(layers)?;
        for mount in self.audience() {
            if let Some(inside) = stack.lies_on(mount.device()) {
                let reason = format!("layer {} lies in the mount that would show it", inside.display());
                return Err(Error::invalid(reason));
            }
        }
        let id = ViewId(self.0.next_view.fetch_add(1, Ordering::Relaxed));
        let info =
            ViewInfo { id, root: *root.identity(), layers: layers.to_vec(), owner, since: SystemTime::now() };
        let view = Arc::new(View::new(Some(info), stack, self.0.numbers.clone()));
        // Before there is a route, so that `self` never leads to nothing
        self.table().insert(id, view.clone());
        if let Err(error) = self.0.router.insert(root, view.clone()) {
            self.withdraw(&view);
            return Err(Error::process("show a view", error));
        }
        tracing::info!(view = %id, root = %root.identity(), layers = layers.len(), "added");
        Ok(id)
    }

    /// Takes the view of a tree away, and says which it was; `None` if it had none.
    ///
    /// Processes of the tree go on, in the view of the next outer tree if there is one. Whatever is still open in the view answers
    /// `ESTALE`.
    ///
    /// # Errors
    ///
    /// Never today: whether there was a view is known. It is a `Result` so that a service that keeps routes elsewhere can fail.
    pub fn remove(&self, root: &Identity) -> Result<Option<ViewInfo>, Error> {
        Ok(self.0.router.remove(root).map(|view| self.withdraw(&view)))
    }

    /// Returns all views, oldest first.
    pub fn list(&self) -> Vec<ViewInfo> {
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        table.values().filter_map(|view| view.info.clone()).collect()
    }

    /// Returns who sees the view of this tree, nested trees included; `None` if it has no view.
    ///
    /// # Errors
    ///
    /// The tree cannot be asked.
    pub fn members(&self, root: &Identity) -> Result<Option<Vec<Identity>>, Error> {
        let mut routes = self.0.router.iter();
        Ok(routes.find(|route| route.root() == root).map(|route| route.tree().members()))
    }

    /// Waits until a tree has ended, and takes its view away; `None` if that did not happen in time.
    ///
    /// Nothing else does: let one thread call this in a loop.
    ///
    /// # Errors
    ///
    /// The kernel cannot be waited on.
    pub fn next_emptied(&self, timeout: Option<Duration>) -> Result<Option<ViewInfo>, Error> {
        let emptied = self.0.router.next_emptied(timeout);
        let emptied = emptied.map_err(|error| Error::process("wait for the end of a tree", error))?;
        Ok(emptied.map(|(_, view)| self.withdraw(&view)))
    }

    /// The view of a caller; `None` if it has none.
    pub(crate) fn of(&self, caller: Caller) -> pidigree::Result<Option<Arc<View>>> {
        Ok(self.0.router.resolve(caller)?.as_deref().cloned())
    }

    pub(crate) fn find(&self, id: ViewId) -> Option<Arc<View>> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn ids(&self) -> Vec<ViewId> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub(crate) fn show_to(&self, mount: Weak<dyn Audience>) {
        let mut audience = lock(&self.0.audience);
        audience.retain(|other| other.strong_count() > 0);
        audience.push(mount);
    }

    fn withdraw(&self, view: &View) -> ViewInfo {
        let info = view.info.clone().expect("what was added has a root");
        self.table().remove(&info.id);
        view.close();
        // With no lock held: the kernel may have to wait for a request that one of our threads answers
        for mount in self.audience() {
            mount.withdrawn(info.id);
        }
        tracing::info!(view = %info.id, root = %info.root, "withdrawn");
        info
    }

    fn table(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<ViewId, Arc<View>>> {
        self.0.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn audience(&self) -> Vec<Arc<dyn Audience>> {
        lock(&self.0.audience).iter().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("views", &self.list()).finish()
    }
}

impl ViewId {
    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no view's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAViewId(String);

impl fmt::Display for NotAViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not the number of a view", self.0)
    }
}

impl std::error::Error for NotAViewId {}

impl FromStr for ViewId {
    type Err = NotAViewId;

    /// Accepts what `Display` writes, and nothing else: a view has one name.
    fn from_str(text: &str) -> Result<ViewId, NotAViewId> {
        let id = text.parse().ok().filter(|number| *number > 0).map(ViewId);
        id.filter(|id| id.to_string() == text).ok_or_else(|| NotAViewId(text.to_owned()))
    }
}

/// Inode numbers below this are fixed: they stand for what a mount has beside views.
const FIRST_FREE: u64 = 16;

/// A stack that is shown, until it is closed; and the numbers of what is in it.
pub(crate) struct View {
    /// `None` where a mount shows nothing else.
    info: Option<ViewInfo>,
    stack: RwLock<Option<Stack>>,
    numbers: Arc<AtomicU64>,
    given: Mutex<Given>,
}

/// Numbers that do not follow from what they stand for.
#[derive(Default)]
struct Given {
    directories: HashMap<PathBuf, u64>,
    leaves: HashMap<(u64, u64), u64>,
}

impl View {
    fn new(info: Option<ViewInfo>, stack: Stack, numbers: Arc<AtomicU64>) -> View {
        View { info, stack: RwLock::new(Some(stack)), numbers, given: Mutex::default() }
    }

    /// A view that belongs to nobody and is not routed to.
    pub(crate) fn alone(stack: Stack) -> View {
        View::new(None, stack, Arc::new(AtomicU64::new(FIRST_FREE)))
    }

    pub(crate) fn id(&self) -> Option<ViewId> {
        self.info.as_ref().map(|info| info.id)
    }

    pub(crate) fn owner(&self) -> Option<Owner> {
        self.info.as_ref().map(|info| info.owner)
    }

    /// The layers; `ESTALE` once the view is gone.
    pub(crate) fn stack(&self) -> io::Result<Stack> {
        let stack = self.stack.read().unwrap_or_else(PoisonError::into_inner);
        stack.clone().ok_or_else(|| Errno::ESTALE.into())
    }

    /// Its descriptors are closed as soon as no request uses them any more.
    fn close(&self) {
        let closed = self.stack.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(closed);
    }

    /// A merged directory is none of a layer's: its path is what stays.
    pub(crate) fn directory_number(&self, path: &Path) -> u64 {
        let mut given = lock(&self.given);
        match given.directories.get(path) {
            Some(number) => *number,
            None => {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                given.directories.insert(path.to_owned(), number);
                number
            }
        }
    }

    /// The names of one file on a layer have one number, whichever of them is looked up, and the same one for as long as the view is
    /// there. It is made of the view's number and the file's own, so that nothing has to be remembered; where those are
    /// too large for that, it is one that was given, and is remembered.
    pub(crate) fn leaf_number(&self, stack: &Stack, (dev, ino): (u64, u64)) -> u64 {
        let view = self.id().map_or(0, ViewId::get);
        let device = stack.device_index(dev).map(|index| index as u64);
        if let Some(number) = device.and_then(|device| composed(view, device, ino)) {
            return number;
        }
        let mut given = lock(&self.given);
        *given.leaves.entry((dev, ino)).or_insert_with(|| self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn root(&self) -> io::Result<Directory> {
        self.stack()?.root()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Bit 62 is set, which no number that was counted up to ever has.
fn composed(view: u64, device: u64, ino: u64) -> Option<u64> {
    const VIEW: u32 = 20;
    const DEVICE: u32 = 4;
    const INO: u32 = 62 - VIEW - DEVICE;
    let fits = view >> VIEW == 0 && device >> DEVICE == 0 && ino >> INO == 0;
    fits.then_some(1 << 62 | view << (DEVICE + INO) | device << INO | ino)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{ViewId, composed};

    #[test]
    fn composed_numbers_stand_for_one_file() {
        let largest = [(1 << 20) - 1, (1 << 4) - 1, (1 << 38) - 1];
        let mut seen = std::collections::HashSet::new();
        for view in [0, 1, largest[0]] {
            for device in [0, 1, largest[1]] {
                for ino in [0, 1, largest[2]] {
                    let number = composed(view, device, ino).unwrap();
                    assert!(number >> 62 == 1 && seen.insert(number));
                }
            }
        }
        assert_eq!(composed(1 << 20, 0, 0), None);
        assert_eq!(composed(0, 1 << 4, 0), None);
        assert_eq!(composed(0, 0, 1 << 38), None);
    }

    #[test]
    fn a_view_has_one_name() {
        assert_eq!("17".parse(), Ok(ViewId(17)));
        for wrong in ["", "0", "017", "+17", " 17", "-1", "default", "18446744073709551616"] {
            assert!(wrong.parse::<ViewId>().is_err(), "{wrong}");
        }
    }
}
