#include "transfer/s3.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool s3_renew_credentials(struct s3 *s3, unsigned generation)
{
	struct s3_credentials found;
	bool renewed;

	if (s3_credentials_load(s3->credentials_file, s3->profile, &found,
				NULL) < 0)
		return false;
	pthread_mutex_lock(&s3->lock);
	if (!s3_credentials_equal(&s3->credentials, &found)) {
		s3->credentials = found;
		s3->generation++;
	}
	renewed = s3->generation != generation;
	pthread_mutex_unlock(&s3->lock);
	s3_credentials_done(&found);
	return renewed;
}

static int s3_reload_credentials(void *backend, struct hib_error *error)
{
	struct s3 *s3 = backend;
	struct s3_credentials found;
	int r;

	r = s3_credentials_load(s3->credentials_file, s3->profile, &found,
				error);
	if (r < 0)
		return r;
	pthread_mutex_lock(&s3->lock);
	s3->credentials = found;
	s3->generation++;
	pthread_mutex_unlock(&s3->lock);
	s3_credentials_done(&found);
	return 0;
}

static void s3_stop(void *backend)
{
	struct s3 *s3 = backend;

	http_stop(s3->http);
}

static void s3_free(void *backend)
{
	struct s3 *s3 = backend;

	http_free(s3->http);
	s3_credentials_done(&s3->credentials);
	pthread_mutex_destroy(&s3->lock);
	free(s3->credentials_file);
	free(s3->profile);
	free(s3);
}

static int copy_string(const char *text, char **ret)
{
	if (!text)
		return 0;
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

static int s3_init(struct s3 *s3, const struct store_config *config,
		   struct hib_error *error)
{
	struct http_config http = {
		.connections = config->connections ? config->connections
						   : STORE_CONNECTIONS_DEFAULT,
		.stall_timeout_ms = config->stall_timeout_ms
					    ? config->stall_timeout_ms
					    : STORE_STALL_TIMEOUT_MS,
		.ca_file = config->ca_file,
	};
	int r;

	s3->request_timeout_ms = config->request_timeout_ms
					 ? config->request_timeout_ms
					 : STORE_REQUEST_TIMEOUT_MS;
	r = copy_string(config->credentials_file, &s3->credentials_file);
	if (r == 0)
		r = copy_string(config->profile, &s3->profile);
	if (r < 0)
		return hib_fail_errno(error, -r, "open store");
	if (!config->region)
		s3_region_load(config->profile, s3->region);
	else if (strlen(config->region) < S3_REGION_BYTES)
		strcpy(s3->region, config->region);
	else
		return hib_fail(error, EINVAL, "the S3 region is too long");
	r = s3_endpoint_init(&s3->endpoint, config, s3->region, error);
	if (r < 0)
		return r;
	r = s3_credentials_load(s3->credentials_file, s3->profile,
				&s3->credentials, error);
	if (r < 0)
		return r;
	http.no_proxy = s3->endpoint.loopback;
	return http_new(&http, &s3->http, error);
}

static int s3_open(const struct store_config *config, struct store *store,
		   void **ret_backend, struct hib_error *error)
{
	struct s3 *s3 = calloc(1, sizeof(*s3));
	int r;

	(void)store;
	if (!s3)
		return hib_fail_errno(error, ENOMEM, "open store");
	pthread_mutex_init(&s3->lock, NULL);
	r = s3_init(s3, config, error);
	if (r < 0) {
		s3_free(s3);
		return r;
	}
	*ret_backend = s3;
	return 0;
}

const struct store_ops s3_store_ops = {
	.scheme = "s3://",
	.open = s3_open,
	.submit = s3_submit,
	.stop = s3_stop,
	.free = s3_free,
	.reload_credentials = s3_reload_credentials,
};
