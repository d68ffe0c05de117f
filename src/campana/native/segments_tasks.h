/* The tasks of attention over the segments of a pack; see segments.h. Included once, after what computes a task. */

/* All values (or keys) turned: of each segment and head (D, width). */
static void turn_all(const Problem *p, const Tensor *x, const int64_t *start, number *out) {
#pragma omp for schedule(dynamic, 1) collapse(2)
  for (int64_t s = 0; s < p->segments; s++)
    for (int64_t h = 0; h < p->kv_heads; h++) {
      const int64_t length = length_of(p, s), width = up(length, 32);
      turned(row(x, p->bounds[s], h), x->token, length, p->size, out + (start[s] * p->kv_heads + h * width) * p->size, width);
    }
}

/* ---- forward ---------------------------------------------------------------------------------------------------------------------- */

/* out (T, H, D) and lse (H, T). Returns 0, or 1 where there is no memory.

   Blocks of queries end where they would end without `skip`: a query's bits are the same either way. */
int campana_attention_forward(const Problem *p, number *out, const int64_t *out_strides, float *lse) {
  int64_t num_tasks = 0, failed = 0;
  for (int64_t s = 0; s < p->segments; s++) num_tasks += (length_of(p, s) + QUERIES - 1) / QUERIES * p->heads;
  int64_t *start = space(8 * p->segments);
  Task *tasks = space(num_tasks * (int64_t)sizeof(Task));
  number *values = start ? space((int64_t)sizeof(number) * widths(p, start) * p->kv_heads * p->size) : NULL;
  if (!start || !tasks || !values) {
    free(start), free(tasks), free(values);
    return 1;
  }
  num_tasks = 0;
  for (int64_t s = 0; s < p->segments; s++)
    for (int64_t h = 0; h < p->heads; h++)
      for (int64_t i = p->skip, stop; i < length_of(p, s); i = stop, num_tasks++) {
        stop = least((i / QUERIES + 1) * QUERIES, length_of(p, s));
        tasks[num_tasks] = (Task){s, h, i, stop, keys_of(p, s, stop), num_tasks};
      }
  qsort(tasks, (size_t)num_tasks, sizeof(Task), by_work);
#pragma omp parallel num_threads(p->threads)
  {
    Forward *at = space(sizeof(Forward));
    turn_all(p, &p->v, start, values);
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < num_tasks; n++) {
      const Task *t = tasks + n;
      const int64_t width = up(length_of(p, t->segment), 32), kv_head = t->head / (p->heads / p->kv_heads);
      if (at) forward_of(p, t, values + (start[t->segment] * p->kv_heads + kv_head * width) * p->size, width, out, out_strides, lse, at);
      else
#pragma omp atomic write
        failed = 1;
    }
    free(at);
  }
  free(start), free(tasks), free(values);
  return (int)failed;
}

/* ---- backward --------------------------------------------------------------------------------------------------------------------- */

/* Queries of a task: a segment has at most eight tasks, so that their sums are at most 4.5 (not causal: 8) times the keys and values. */
INLINE int64_t queries_of_task(int64_t length) { return most(256, up((length + 7) / 8, QUERIES)); }

/* grad_q (T, H, D), grad_k and grad_v (T, K, D), contiguous. Returns 0, or 1 where there is no memory. */
int campana_attention_backward(const Problem *p, const Gradients *g) {
  int64_t num_tasks = 0, places = 0, failed = 0;
  const int64_t group = p->heads / p->kv_heads, size = p->size;
  for (int64_t s = 0; s < p->segments; s++) {
    const int64_t length = length_of(p, s), step = queries_of_task(length);
    num_tasks += (length + step - 1) / step * p->kv_heads;
  }
  int64_t *start = space(8 * p->segments), *first_task = space(8 * (p->segments * p->kv_heads + 1));
  Task *tasks = space(num_tasks * (int64_t)sizeof(Task)), *queue = space(num_tasks * (int64_t)sizeof(Task));
  number *keys = start ? space((int64_t)sizeof(number) * widths(p, start) * p->kv_heads * size) : NULL;
  num_tasks = 0;
  if (tasks && first_task)
    for (int64_t s = 0; s < p->segments; s++)
      for (int64_t h = 0; h < p->kv_heads; h++) {
        const int64_t length = length_of(p, s), step = queries_of_task(length);
        first_task[s * p->kv_heads + h] = num_tasks;
        for (int64_t i = 0; i < length; i += step, num_tasks++) {
          const int64_t stop = least(i + step, length);
          tasks[num_tasks] = (Task){s, h, i, stop, keys_of(p, s, stop), places};
          places += tasks[num_tasks].keys;
        }
        first_task[s * p->kv_heads + h + 1] = num_tasks;
      }
  float *sums = space(2 * 4 * places * size);
  if (!start || !first_task || !tasks || !queue || !keys || !sums) {
    free(start), free(first_task), free(tasks), free(queue), free(keys), free(sums);
    return 1;
  }
  memcpy(queue, tasks, (size_t)num_tasks * sizeof(Task));
  qsort(queue, (size_t)num_tasks, sizeof(Task), by_work);
#pragma omp parallel num_threads(p->threads)
  {
    Backward *at = space(sizeof(Backward));
    turn_all(p, &p->k, start, keys);
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < num_tasks; n++) {
      const Task *t = queue + n;
      const int64_t width = up(length_of(p, t->segment), 32);
      float *sum_k = sums + 2 * t->place * size, *sum_v = sum_k + t->keys * size;
      memset(sum_k, 0, (size_t)(2 * 4 * t->keys * size));
      if (!at)
#pragma omp atomic write
        failed = 1;
      else
        for (int64_t i = t->first; i < t->stop; i += QUERIES)
          for (int64_t h = t->head * group; h < (t->head + 1) * group; h++)
            backward_block(p, g, t->segment, h, i, least(i + QUERIES, t->stop),
                           keys + (start[t->segment] * p->kv_heads + t->head * width) * size, width, sum_k, sum_v, at);
    }
    free(at);
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t s = 0; s < p->segments; s++)
      for (int64_t h = 0; h < p->kv_heads; h++) {
        const float *sums_k[8], *sums_v[8];
        int64_t seen[8], num = 0;
        for (int64_t n = first_task[s * p->kv_heads + h]; n < first_task[s * p->kv_heads + h + 1]; n++, num++) {
          sums_k[num] = sums + 2 * tasks[n].place * size;
          sums_v[num] = sums_k[num] + tasks[n].keys * size;
          seen[num] = tasks[n].keys;
        }
        const int64_t place = (p->bounds[s] * p->kv_heads + h) * size, stride = p->kv_heads * size;
        add_up(sums_k, seen, num, length_of(p, s), size, p->scale, g->grad_k + place, stride);
        add_up(sums_v, seen, num, length_of(p, s), size, 1.0f, g->grad_v + place, stride);
      }
  }
  free(start), free(first_task), free(tasks), free(queue), free(keys), free(sums);
  return (int)failed;
}
