// The threads of a block as fibres, run in turn on one thread of the CPU. A lane runs until it
// waits for others or ends; a round in which no lane moves is a barrier that not everybody reaches.
#include "cuda_runtime.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <numeric>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

dim3 gridDim;
dim3 blockDim;
dim3 blockIdx;

namespace shim {

namespace {

constexpr std::size_t kStackBytes = 256 << 10;
constexpr unsigned char kUnsetShared = 0xcd;
constexpr unsigned char kOnItsWay = 0xff;

#if defined(__x86_64__)
using Context = void *; // the stack pointer, with the callee-saved registers pushed

extern "C" void fastcal_shim_switch(void **save, void *to);
asm(R"(
.text
.globl fastcal_shim_switch
.type fastcal_shim_switch, @function
fastcal_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastcal_shim_switch, .-fastcal_shim_switch
)");
#else
using Context = ucontext_t;
#endif

struct Copy {
  unsigned char *to;
  const unsigned char *from;
  int size;
  int bytes;
};

struct Lane {
  Context context{};
  std::unique_ptr<char[]> stack;
  dim3 index;
  bool finished = false;
  Kind waits = Kind::kNone;
  unsigned mask = 0;
  std::uint64_t brought = 0;
  std::uint64_t seen[kLanes] = {};
  std::vector<std::vector<Copy>> groups; // of copies on their way, oldest first
  std::vector<Copy> open_group;
  void *fake_stack = nullptr; // of the address sanitizer
};

std::vector<Lane> lanes;
Lane *current = nullptr;
Context scheduler{};
std::vector<unsigned char> shared;
Body body = nullptr;
void *argument = nullptr;
#if defined(__SANITIZE_ADDRESS__)
const void *scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
void *scheduler_fake_stack = nullptr;
#endif

void swap_to(Context &save, Context &to) {
#if defined(__x86_64__)
  fastcal_shim_switch(&save, to);
#else
  swapcontext(&save, &to);
#endif
}

void leave_lane(Lane &lane) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(lane.finished ? nullptr : &lane.fake_stack, scheduler_stack,
                                 scheduler_stack_bytes);
#endif
  swap_to(lane.context, scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(lane.fake_stack, nullptr, nullptr);
#endif
}

void enter_lane(Lane &lane) {
  current = &lane;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, lane.stack.get(), kStackBytes);
#endif
  swap_to(scheduler, lane.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
  current = nullptr;
}

void lane_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  body(argument);
  if (!current->open_group.empty()) {
    fail("a lane ends with copies that no group holds");
  }
  for (const auto &group : current->groups) {
    if (!group.empty()) {
      fail("a lane ends with copies that it has not waited for");
    }
  }
  current->finished = true;
  leave_lane(*current);
  fail("a finished lane was resumed");
}

void prepare(Lane &lane, unsigned thread) {
  if (lane.stack == nullptr) {
    lane.stack.reset(new char[kStackBytes]);
  }
  lane.index = dim3(thread, 0, 0);
  lane.finished = false;
  lane.waits = Kind::kNone;
  lane.groups.clear();
  lane.open_group.clear();
  lane.fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  // The lane before never returned from its frames, whose marks would outlive it.
  __asan_unpoison_memory_region(lane.stack.get(), kStackBytes);
#endif
#if defined(__x86_64__)
  auto top = reinterpret_cast<std::uintptr_t>(lane.stack.get() + kStackBytes) / 16 * 16;
  auto *words = reinterpret_cast<void **>(top);
  *--words = nullptr;                              // aligns the stack as after a call
  *--words = reinterpret_cast<void *>(&lane_main); // the first switch returns to it
  for (int saved = 0; saved < 6; ++saved) {
    *--words = nullptr;
  }
  lane.context = words;
#else
  getcontext(&lane.context);
  lane.context.uc_stack.ss_sp = lane.stack.get();
  lane.context.uc_stack.ss_size = kStackBytes;
  makecontext(&lane.context, lane_main, 0);
#endif
}

// The order in which lanes run. FASTCAL_SHIM_ORDER is 0 for forward, 1 for reverse, 2 for shuffled.
class Order {
public:
  explicit Order(std::size_t count) : order_(count), how_(setting("FASTCAL_SHIM_ORDER", 0)) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    if (how_ == 1) {
      std::reverse(order_.begin(), order_.end());
    }
  }
  const std::vector<std::size_t> &next_round() {
    for (std::size_t i = order_.size(); how_ == 2 && i > 1; --i) {
      state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
      std::swap(order_[i - 1], order_[(state_ >> 33) % i]);
    }
    return order_;
  }

private:
  std::vector<std::size_t> order_;
  long long how_;
  std::uint64_t state_ = 1;
};

void run_block(Order &order) {
  for (std::size_t i = 0; i < lanes.size(); ++i) {
    prepare(lanes[i], static_cast<unsigned>(i));
  }
  for (;;) {
    bool moved = false;
    bool done = true;
    for (const std::size_t i : order.next_round()) {
      Lane &lane = lanes[i];
      if (!lane.finished && lane.waits == Kind::kNone) {
        enter_lane(lane);
        moved = true;
      }
      done = done && lane.finished;
    }
    if (done) {
      return;
    }
    if (!moved) {
      fail("lanes wait for a collective that not all of them reach");
    }
  }
}

bool is_here(const Lane &lane, Kind kind, unsigned mask) {
  return !lane.finished && lane.waits == kind && lane.mask == mask;
}

} // namespace

void fail(const char *reason) {
  std::fprintf(stderr, "cuda shim: block (%u, %u): %s\n", blockIdx.x, blockIdx.y, reason);
  std::abort();
}

const dim3 &thread_index() { return current->index; }
unsigned char *dynamic_shared() { return shared.data(); }

long long setting(const char *name, long long otherwise) {
  const char *text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoll(text);
}

void note_copy(void *to, const void *from, int size, int bytes) {
  const auto misaligned = [size](const void *at) {
    return reinterpret_cast<std::uintptr_t>(at) % static_cast<std::uintptr_t>(size) != 0;
  };
  if (misaligned(to) || misaligned(from)) {
    fail("a copy to or from an address that is not aligned to its size");
  }
  auto *const place = static_cast<unsigned char *>(to);
  if (place < shared.data() || place + size > shared.data() + shared.size()) {
    fail("a copy to a place outside the shared memory");
  }
  std::memset(place, kOnItsWay, static_cast<std::size_t>(size));
  current->open_group.push_back({place, static_cast<const unsigned char *>(from), size, bytes});
}

void close_group() {
  current->groups.push_back(std::move(current->open_group));
  current->open_group.clear();
}

void land_copies(int pending) {
  auto &groups = current->groups;
  while (groups.size() > static_cast<std::size_t>(pending)) {
    for (const Copy &copy : groups.front()) {
      std::memset(copy.to, 0, static_cast<std::size_t>(copy.size));
      std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
    }
    groups.erase(groups.begin());
  }
}

const std::uint64_t *collect(Kind kind, unsigned mask, std::uint64_t value) {
  Lane &self = *current;
  const std::size_t warp = self.index.x / kLanes * kLanes;
  self.waits = kind;
  self.mask = mask;
  self.brought = value;
  const bool block_wide = kind == Kind::kSyncThreads;
  const std::size_t first = block_wide ? 0 : warp;
  const std::size_t last = block_wide ? lanes.size() : warp + kLanes;
  const auto takes_part = [&](std::size_t i) {
    return block_wide || (mask >> (i - warp) & 1U) != 0;
  };
  for (std::size_t i = first; i < last; ++i) {
    if (takes_part(i) && !is_here(lanes[i], kind, mask)) {
      leave_lane(self);
      return self.seen;
    }
  }
  for (std::size_t i = first; i < last; ++i) {
    if (takes_part(i)) {
      for (std::size_t k = 0; !block_wide && k < kLanes; ++k) {
        lanes[i].seen[k] = lanes[warp + k].brought;
      }
      lanes[i].waits = Kind::kNone;
    }
  }
  return self.seen;
}

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, Body run, void *with) {
  static std::mutex one_launch;
  const std::lock_guard<std::mutex> lock(one_launch);
  if (block.x % kLanes != 0) {
    fail("a block that is not made of whole warps");
  }
  lanes.resize(block.x);
  gridDim = grid;
  blockDim = block;
  body = run;
  argument = with;
  Order order(lanes.size());
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = dim3(x, y, 0);
      // Allocated for each block, so that the address sanitizer sees a step beyond its end.
      shared = std::vector<unsigned char>(shared_bytes, kUnsetShared);
      run_block(order);
    }
  }
}

} // namespace shim
