// The thread pool: every task runs once, several threads call at once, exceptions reach the caller,
// and a forked child may call.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/thread_pool.h"

using fastcal::cpu::parallel_for;

namespace {

std::int64_t sum_to(std::int64_t n, int threads) {
  std::atomic<std::int64_t> sum{0};
  parallel_for(n, threads, [&](std::int64_t index) { sum += index; });
  return sum;
}

void every_task_runs_once() {
  for (const int threads : {1, 2, 3, 8}) {
    std::vector<std::atomic<int>> runs(1000);
    parallel_for(1000, threads, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
    for (const auto &count : runs) {
      CHECK(count == 1);
    }
  }
  CHECK(sum_to(0, 4) == 0);
}

void many_callers_at_once_all_finish() {
  std::vector<std::thread> callers;
  std::atomic<int> right{0};
  for (int c = 0; c < 64; ++c) {
    callers.emplace_back([&] { right += sum_to(100, 4) == 4950; });
  }
  for (std::thread &caller : callers) {
    caller.join();
  }
  CHECK(right == 64);
}

void the_first_exception_reaches_the_caller() {
  bool caught = false;
  try {
    parallel_for(100, 4, [](std::int64_t i) {
      if (i == 17) {
        throw std::runtime_error("seventeen");
      }
    });
  } catch (const std::runtime_error &) {
    caught = true;
  }
  CHECK(caught);
  CHECK(sum_to(100, 4) == 4950);
}

void a_forked_child_computes() {
  CHECK(sum_to(100, 4) == 4950); // the parent has workers now
  const pid_t child = fork();
  if (child == 0) {
    _exit(sum_to(100, 4) == 4950 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

} // namespace

int main() {
  every_task_runs_once();
  many_callers_at_once_all_finish();
  the_first_exception_reaches_the_caller();
  a_forked_child_computes();
  return check::failures();
}
