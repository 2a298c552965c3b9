/* verify: the operator rp::bn_leaky_relu against libtorch's own operators, bit by bit. */
#include <stdio.h>
#include <string.h>

#include "base/options.h"
#include "base/result.h"
#include "command.h"
#include "rp/rp.h"

typedef struct verification {
    json json;
    bool quiet;
    int64_t cases, fused, differing_cases, differing_elements;
    double max_difference;
} verification;

static void write_case(json *json, const rp_verify_case *c) {
    json_object(json, NULL);
    json_string(json, "shape", c->shape);
    json_string(json, "dtype", c->dtype);
    json_string(json, "layout", c->layout);
    json_bool(json, "affine", c->affine);
    json_string(json, "mode", c->mode);
    json_string(json, "path", c->path);
    json_object(json, "outputs");
    for (int i = 0; i < c->outputs; i++) {
        json_int(json, c->output[i].name, c->output[i].differing_elements);
    }
    json_end(json);
    json_end(json);
}

static int take_case(const rp_verify_case *c, void *context) {
    verification *v = context;
    int64_t differing = 0;
    double distance = 0;
    const char *worst = "";
    for (int i = 0; i < c->outputs; i++) {
        if (c->output[i].differing_elements > 0) {
            worst = c->output[i].name;
        }
        differing += c->output[i].differing_elements;
        distance = c->output[i].max_difference > distance ? c->output[i].max_difference : distance;
    }
    v->cases++;
    v->fused += strcmp(c->path, "fused") == 0;
    v->differing_cases += differing > 0;
    v->differing_elements += differing;
    v->max_difference = distance > v->max_difference ? distance : v->max_difference;
    if (differing > 0 || !v->quiet) {
        printf("%-5s %-16s %-30s %-30s %-26s %-7s %s: %lld differ, max difference %.2e%s%s\n",
               differing > 0 ? "DIFF" : "ok", c->shape, c->dtype, c->layout, c->mode,
               c->affine ? "affine" : "plain", c->path, (long long)differing, distance,
               *worst ? " in " : "", worst);
    }
    write_case(&v->json, c);
    return 0;
}

static bool verify(verification *v, const char *device, bool perturb, error *error) {
    int64_t differing = 0;
    if (rp_verify(&differing, device, perturb, take_case, v) != RP_OK) {
        return error_set(error, "%s", rp_last_error());
    }
    return true;
}

static bool write_result(verification *v, const char *path, error *error) {
    json_end(&v->json); /* the cases */
    json_int(&v->json, "differing_elements", v->differing_elements);
    json_double(&v->json, "max_difference", v->max_difference);
    json_end(&v->json);
    return !path || json_write(&v->json, path, error);
}

int cmd_verify(int argc, char **argv) {
    const char *device = NULL, *path = NULL;
    bool perturb = false;
    verification v = {.json = {.lines = 2}};
    static const char *const devices[] = {"cpu", "cuda", NULL};
    option options[] = {
        {"device", OPTION_STRING, &device, "D", "cpu or cuda (default: cuda where there is a GPU)",
         .choices = devices},
        {"json", OPTION_STRING, &path, "FILE", "every case as JSON"},
        {"quiet", OPTION_FLAG, &v.quiet, NULL, "only cases that differ, and the sum"},
        {"perturb", OPTION_FLAG, &perturb, NULL,
         "flip one bit of each result first: every case must then differ"},
    };
    int status;
    if (!OPTIONS_PARSE("verify", "Compares the fused operator with libtorch's own, bit by bit.",
                       options, argc, argv, &status)) {
        return status;
    }
    error error = {""};
    rp_machine machine;
    bool ok = rp_machine_describe(&machine) == RP_OK || error_set(&error, "%s", rp_last_error());
    if (ok) {
        device = device ? device : *machine.gpu ? "cuda" : "cpu";
        const bool on_gpu = strcmp(device, "cuda") == 0;
        result_begin(&v.json, argc, argv, &machine);
        json_string(&v.json, "torch", machine.torch);
        json_string(&v.json, "gpu", on_gpu ? machine.gpu : NULL);
        json_array(&v.json, "cases");
        ok = verify(&v, device, perturb, &error) && write_result(&v, path, &error);
    }
    json_free(&v.json);
    if (!ok) {
        fprintf(stderr, "return-predictor verify: %s\n", error.message);
        return EXIT_FAILED;
    }
    printf("%lld cases on %s, %lld fused, %lld differ in %lld elements\n", (long long)v.cases,
           device, (long long)v.fused, (long long)v.differing_cases,
           (long long)v.differing_elements);
    printf("max difference %.2e\n", v.max_difference);
    return v.differing_elements == 0 ? EXIT_DONE : EXIT_FAILED;
}
