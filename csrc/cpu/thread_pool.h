// A pool of threads for one kind of work: tasks 0..n-1 of a call, in any order.
#pragma once

#include <cstdint>
#include <functional>

namespace fastcal::cpu {

// Runs task(index) for every index in [0, n_tasks) on at most n_threads threads, the caller among
// them, PyTorch's workers where there are such; returns when all are done. Any number of threads
// may call at once, and a forked child may call although its parent's workers did not survive the
// fork. The first exception of a task is rethrown here.
void parallel_for(std::int64_t n_tasks, int n_threads,
                  const std::function<void(std::int64_t)> &task);

} // namespace fastcal::cpu
