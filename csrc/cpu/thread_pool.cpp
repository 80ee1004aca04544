#include "cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#if !defined(_WIN32)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace fastcal::cpu {

namespace {

struct Job {
  Job(const std::function<void(std::int64_t)> &work, std::int64_t n, int helpers)
      : task(&work), n_tasks(n), helpers_wanted(helpers) {}

  const std::function<void(std::int64_t)> *task;
  std::int64_t n_tasks;
  std::atomic<std::int64_t> next{0};
  int helpers_wanted; // guarded by the pool's mutex, as is helpers_active
  int helpers_active = 0;
  std::exception_ptr error;
  std::mutex error_mutex;

  void work() {
    for (;;) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= n_tasks) {
        return;
      }
      try {
        (*task)(index);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(error_mutex);
        error = error ? error : std::current_exception();
        next.store(n_tasks, std::memory_order_relaxed);
      }
    }
  }
};

class Pool {
public:
  void run(Job &job) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (; n_workers_ < job.helpers_wanted; ++n_workers_) {
        std::thread(&Pool::serve, this).detach();
      }
      jobs_.push_back(&job);
    }
    job_added_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    helper_left_.wait(lock, [&] { return job.helpers_active == 0; });
  }

private:
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      const auto found = std::find_if(jobs_.begin(), jobs_.end(), [](const Job *job) {
        return job->helpers_active < job->helpers_wanted &&
               job->next.load(std::memory_order_relaxed) < job->n_tasks;
      });
      if (found == jobs_.end()) {
        job_added_.wait(lock);
        continue;
      }
      Job *job = *found;
      ++job->helpers_active;
      lock.unlock();
      job->work();
      lock.lock();
      --job->helpers_active;
      helper_left_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable job_added_;
  std::condition_variable helper_left_;
  std::deque<Job *> jobs_;
  int n_workers_ = 0;
};

// The pool is never destroyed, because detached workers wait in it until the process ends. A forked
// child replaces it, because threads and locked mutexes do not survive a fork.
std::atomic<Pool *> the_pool{nullptr};
std::atomic<bool> is_forked{false};

#if !defined(_WIN32)
// Registered when the library is loaded, since OpenMP may have been at work before the first call.
[[maybe_unused]] const int watching_forks = pthread_atfork(nullptr, nullptr, [] {
  the_pool.store(nullptr);
  is_forked.store(true);
});
#endif

Pool &pool() {
  Pool *existing = the_pool.load();
  if (existing == nullptr) {
    Pool *fresh = new Pool;
    if (the_pool.compare_exchange_strong(existing, fresh)) {
      return *fresh;
    }
    delete fresh;
  }
  return *existing;
}

using OpenMp = void (*)(void (*work)(void *), void *data, unsigned n_threads, unsigned flags);

// The OpenMP runtime that PyTorch brought into the process, if it did. Its workers keep spinning
// for some milliseconds after an operation, and workers of our own would compete with them for the
// cores. They do not survive a fork either, and OpenMP cannot replace them.
OpenMp openmp() {
#if defined(_WIN32)
  return nullptr;
#else
  static const auto found = reinterpret_cast<OpenMp>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return is_forked.load() ? nullptr : found;
#endif
}

} // namespace

void parallel_for(std::int64_t n_tasks, int n_threads,
                  const std::function<void(std::int64_t)> &task) {
  const int helpers = static_cast<int>(std::min<std::int64_t>(n_threads, n_tasks)) - 1;
  if (helpers <= 0) {
    for (std::int64_t index = 0; index < n_tasks; ++index) {
      task(index);
    }
    return;
  }
  Job job(task, n_tasks, helpers);
  if (const OpenMp run = openmp()) {
    run([](void *data) { static_cast<Job *>(data)->work(); }, &job,
        static_cast<unsigned>(helpers + 1), 0);
  } else {
    pool().run(job);
  }
  if (job.error) {
    std::rethrow_exception(job.error);
  }
}

} // namespace fastcal::cpu
