/* One handler a route (router.c); each in the file of its noun. */
#ifndef SERVE_HANDLERS_H
#define SERVE_HANDLERS_H

#include "serve/request.h"

/* predict.c */
void handle_predict(request *request);
/* oip.c */
void handle_oip_server(request *request);
void handle_oip_live(request *request);
void handle_oip_ready(request *request);
void handle_oip_model(request *request);
void handle_oip_model_ready(request *request);
void handle_oip_infer(request *request);
void handle_oip_stats(request *request);
/* tickers.c */
void handle_tickers(request *request);
void handle_ticker(request *request);
/* model_card.c */
void handle_model_card(request *request);
/* dashboard.c */
void handle_home(request *request);
void handle_asset(request *request);
void handle_openapi(request *request);
/* operations.c */
void handle_healthz(request *request);
void handle_metrics(request *request);
void handle_reload(request *request);

#endif
