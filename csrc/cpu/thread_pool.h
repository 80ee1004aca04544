// A pool of threads that runs the tasks 0 to n - 1 of a call, in any order.
#pragma once

#include <cstdint>
#include <functional>

namespace fastcal::cpu {

// Runs task(index) for every index in [0, n_tasks) and returns when all are done. At most n_threads
// threads take part: the caller and, where PyTorch has workers, those. Any number of threads may
// call at once. A forked child may call too, although its parent's workers did not survive the
// fork. The first exception of a task is rethrown here.
void parallel_for(std::int64_t n_tasks, int n_threads,
                  const std::function<void(std::int64_t)> &task);

} // namespace fastcal::cpu
