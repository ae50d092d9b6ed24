//! Threads, locks and atomics: the standard library's; with `--cfg shuttle`
//! those of [shuttle](https://docs.rs/shuttle), which runs the same code under
//! schedules of its own choice (`tests/models`, `make models`).

#[cfg(shuttle)]
pub(crate) use model::{Condvar, thread};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic, mpsc};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, atomic, mpsc};
#[cfg(not(shuttle))]
pub(crate) use std::thread;

/// What shuttle leaves out: waits that time out, and builders of scoped threads.
#[cfg(shuttle)]
mod model {
    use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use shuttle::sync::{self, Arc, LockResult, MutexGuard};
    use std::time::Duration;

    /// A wait of at most so long times out, at any moment. A longer one never
    /// does, so that one who needs the poll interval where a wake-up was
    /// promised hangs, and shuttle tells.
    const SHORT: Duration = Duration::from_millis(100);

    #[derive(Default)]
    pub(crate) struct Condvar(Arc<sync::Condvar>);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
        ) -> LockResult<MutexGuard<'a, T>> {
            self.0.wait(guard)
        }

        /// A thread that lets the wait time out.
        fn timer(&self, longest: Duration) -> Arc<AtomicBool> {
            let over = Arc::new(AtomicBool::new(false));
            if longest <= SHORT {
                let (changed, over) = (Arc::clone(&self.0), Arc::clone(&over));
                shuttle::thread::spawn(move || {
                    over.store(true, SeqCst);
                    // Until the wait is over: it may not sleep yet.
                    while Arc::strong_count(&over) > 1 {
                        changed.notify_all();
                        shuttle::thread::yield_now();
                    }
                });
            }
            over
        }

        pub(crate) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            longest: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, bool)> {
            let mut once = true;
            self.wait_timeout_while(guard, longest, |_| std::mem::take(&mut once))
        }

        pub(crate) fn wait_timeout_while<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            longest: Duration,
            mut condition: impl FnMut(&mut T) -> bool,
        ) -> LockResult<(MutexGuard<'a, T>, bool)> {
            let over = self.timer(longest);
            while condition(&mut guard) {
                if over.load(SeqCst) {
                    return Ok((guard, true));
                }
                guard = match self.0.wait(guard) {
                    Ok(guard) => guard,
                    Err(poisoned) => poisoned.into_inner(),
                };
            }
            Ok((guard, false))
        }
    }

    pub(crate) mod thread {
        use shuttle::rand::{Rng, thread_rng};
        pub(crate) use shuttle::thread::{
            JoinHandle, Scope, ScopedJoinHandle, ThreadId, current, scope, sleep, spawn, yield_now,
        };
        use std::io;
        pub(crate) use std::thread::panicking;

        fn may_fail() -> io::Result<()> {
            match thread_rng().gen_ratio(1, 8) {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(()),
            }
        }

        /// Starts threads without names or stacks; one in eight fails to start.
        pub(crate) struct Builder;

        impl Builder {
            pub(crate) fn new() -> Self {
                Self
            }

            pub(crate) fn name(self, _: String) -> Self {
                self
            }

            pub(crate) fn stack_size(self, _: usize) -> Self {
                self
            }

            pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
                self,
                scope: &'scope Scope<'scope, '_>,
                body: impl FnOnce() -> T + Send + 'scope,
            ) -> io::Result<ScopedJoinHandle<'scope, T>> {
                may_fail().map(|()| scope.spawn(body))
            }

            pub(crate) fn spawn<T: Send + 'static>(
                self,
                body: impl FnOnce() -> T + Send + 'static,
            ) -> io::Result<JoinHandle<T>> {
                may_fail().map(|()| spawn(body))
            }
        }
    }
}
