/*
 * One listening thread: it accepts, cancels the call of a client that has hung
 * up, and joins the threads of connections that are over. It waits in
 * epoll_wait() for the listening socket, for a hang-up of any connection, and
 * for `wake` (a connection has ended, or the server shall stop). One thread for
 * each connection (rpc_connection.c).
 *
 * Only the listening thread frees a connection: what it has looked up stays
 * while it looks at it, without the lock. A connection closes its descriptor
 * only after it has left `active`, under the lock: whoever finds it there may
 * shut the descriptor down.
 */
#include "control/rpc.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "control/rpc_connection.h"
#include "control/rpc_listen.h"

#define CONNECTION_LIMIT 512
#define ROOT_RESERVE 16
#define SEND_TIMEOUT_MS 10000
#define STACK_BYTES (512u << 10)
#define GRACE_MS 2000 /* for replies that are under way at the stop */
#define BACK_OFF_MS 100 /* while no connection can be accepted */

/* What epoll gives back: an id of a connection, or one of these. */
#define EVENT_LISTEN 0
#define EVENT_WAKE UINT64_MAX

struct rpc_server {
	struct rpc_shared shared;
	struct peer_access access;
	const struct log *log;
	unsigned int connection_limit;
	char *path; /* NULL: none */
	struct stat identity;
	int listen_fd;
	int epoll_fd;
	int wake_fd;
	bool backing_off; /* the listening thread's: it does not accept now */
	pthread_t thread;

	pthread_mutex_t lock;
	/* guarded by lock */
	struct rpc_connection *active;
	struct rpc_connection *ended; /* to be joined and freed */
	unsigned int count; /* of both */
	uint64_t last_id;
};

static void wake(struct rpc_server *server)
{
	uint64_t one = 1;

	/* It cannot fail: the counter does not overflow. */
	if (write(server->wake_fd, &one, sizeof(one)) < 0)
		return;
}

static void remove_from(struct rpc_connection **list,
			struct rpc_connection *connection)
{
	while (*list != connection)
		list = &(*list)->next;
	*list = connection->next;
}

static void *connection_run(void *arg)
{
	struct rpc_connection *connection = arg;
	struct rpc_server *server = connection->server;
	const struct rpc_handler *handler = &server->shared.handler;

	rpc_connection_serve(connection);
	if (handler->closed)
		handler->closed(handler->arg, connection->id);
	pthread_mutex_lock(&server->lock);
	remove_from(&server->active, connection);
	connection->next = server->ended;
	server->ended = connection;
	pthread_mutex_unlock(&server->lock);
	connection->fd = close_fd(connection->fd);
	wake(server);
	return NULL;
}

static struct rpc_connection *connection_free(struct rpc_connection *connection)
{
	close_fd(connection->fd);
	cancel_done(&connection->cancel);
	free(connection);
	return NULL;
}

/* Signals are the main thread's. */
static int start_thread(pthread_t *ret, void *(*run)(void *arg), void *arg)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	int code;

	sigfillset(&all);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	code = pthread_create(ret, &attributes, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return -code;
}

static int connection_start_locked(struct rpc_server *server,
				   struct rpc_connection *connection)
{
	/* Without events: a hang-up is always told, and this once. */
	struct epoll_event event = { .events = EPOLLONESHOT };
	int r;

	connection->id = ++server->last_id;
	event.data.u64 = connection->id;
	if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) <
	    0)
		return -errno;
	r = start_thread(&connection->thread, connection_run, connection);
	if (r < 0)
		return r;
	connection->next = server->active;
	server->active = connection;
	server->count++;
	return 0;
}

/* Takes the descriptor over when it succeeds. */
static int add_connection(struct rpc_server *server, int fd, uid_t uid,
			  struct hib_error *error)
{
	unsigned int limit =
		server->connection_limit + (uid == 0 ? ROOT_RESERVE : 0);
	struct rpc_connection *connection;
	int r;

	connection = calloc(1, sizeof(*connection));
	if (!connection)
		return hib_fail_errno(error, ENOMEM,
				      "The connection cannot be served");
	connection->server = server;
	connection->shared = &server->shared;
	connection->fd = fd;
	cancel_init(&connection->cancel, &server->shared.cancel);
	pthread_mutex_lock(&server->lock);
	if (atomic_load(&server->shared.stopping))
		r = hib_fail(error, ESHUTDOWN, "This hibfs is shutting down.");
	else if (server->count >= limit)
		r = hib_fail(
			error, EAGAIN,
			"All %u connections to this hibfs are taken; try again when another client has gone.",
			limit);
	else
		r = connection_start_locked(server, connection);
	pthread_mutex_unlock(&server->lock);
	if (r < 0) {
		connection->fd = -EBADF;
		connection_free(connection);
		if (!error->code)
			hib_fail_errno(error, -r,
				       "The connection cannot be served");
	}
	return r;
}

int rpc_server_adopt(struct rpc_server *server, int fd, struct hib_error *error)
{
	struct rpc_failure failure = RPC_FAILURE_INIT;
	uid_t uid = (uid_t)-1;
	int r;

	r = peer_check(fd, &server->access, &uid, &failure.error);
	if (r == 0)
		r = add_connection(server, fd, uid, &failure.error);
	if (r < 0) {
		rpc_refuse(fd, &failure);
		close_fd(fd);
		if (error)
			*error = failure.error;
	}
	return r;
}

/* --- the listening thread --- */

static void set_accepting(struct rpc_server *server, bool accepting)
{
	struct epoll_event event = { .events = accepting ? EPOLLIN : 0,
				     .data.u64 = EVENT_LISTEN };

	epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, server->listen_fd, &event);
	server->backing_off = !accepting;
}

static void accept_one(struct rpc_server *server)
{
	struct hib_error error = HIB_ERROR_INIT;
	int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0) {
		if (rpc_server_adopt(server, fd, &error) < 0)
			log_info(server->log, "A client is refused: %s",
				 error.message);
		return;
	}
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return;
	/* The client stays in the queue, and epoll would tell at once. */
	log_warning(server->log,
		    "No connection can be accepted for the moment: %s",
		    strerrordesc_np(errno));
	set_accepting(server, false);
}

static void hung_up(struct rpc_server *server, uint64_t id)
{
	struct rpc_connection *connection;

	pthread_mutex_lock(&server->lock);
	connection = server->active;
	while (connection && connection->id != id)
		connection = connection->next;
	pthread_mutex_unlock(&server->lock);
	if (connection)
		cancel_request(&connection->cancel);
}

static void reap(struct rpc_server *server)
{
	struct rpc_connection *connection, *next;

	pthread_mutex_lock(&server->lock);
	connection = TAKE_PTR(server->ended);
	pthread_mutex_unlock(&server->lock);
	for (; connection; connection = next) {
		next = connection->next;
		pthread_join(connection->thread, NULL);
		connection_free(connection);
		pthread_mutex_lock(&server->lock);
		server->count--;
		pthread_mutex_unlock(&server->lock);
	}
}

static void shut_all(struct rpc_server *server, int how)
{
	pthread_mutex_lock(&server->lock);
	for (struct rpc_connection *c = server->active; c; c = c->next)
		shutdown(c->fd, how);
	pthread_mutex_unlock(&server->lock);
}

static bool has_connections(struct rpc_server *server)
{
	bool has;

	pthread_mutex_lock(&server->lock);
	has = server->count > 0;
	pthread_mutex_unlock(&server->lock);
	return has;
}

/* One wait for what happens; -1: for ever. */
static void handle_events(struct rpc_server *server, int timeout_ms)
{
	struct epoll_event events[32];
	uint64_t ignored;
	int count = epoll_wait(server->epoll_fd, events, ARRAY_SIZE(events),
			       timeout_ms);

	for (int i = 0; i < count; i++) {
		if (events[i].data.u64 == EVENT_LISTEN) {
			accept_one(server);
		} else if (events[i].data.u64 == EVENT_WAKE) {
			if (read(server->wake_fd, &ignored, sizeof(ignored)) >
			    0)
				reap(server);
		} else {
			hung_up(server, events[i].data.u64);
		}
	}
}

static void *server_run(void *arg)
{
	struct rpc_server *server = arg;
	uint64_t deadline_ms;
	bool backed_off;

	while (!atomic_load(&server->shared.stopping)) {
		backed_off = server->backing_off;
		handle_events(server, backed_off ? BACK_OFF_MS : -1);
		if (backed_off)
			set_accepting(server, true);
	}
	server->listen_fd = close_fd(server->listen_fd);
	/* Replies still go out: only what is not yet read is cut off. */
	shut_all(server, SHUT_RD);
	deadline_ms = clock_monotonic_ms() + GRACE_MS;
	while (has_connections(server) && clock_monotonic_ms() < deadline_ms)
		handle_events(server,
			      (int)(deadline_ms - clock_monotonic_ms()) + 1);
	shut_all(server, SHUT_RDWR);
	while (has_connections(server))
		handle_events(server, -1);
	return NULL;
}

/* --- start and stop --- */

static struct rpc_server *server_free(struct rpc_server *server)
{
	if (server->path && server->listen_fd >= 0)
		rpc_unlisten(server->path, &server->identity);
	close_fd(server->listen_fd);
	close_fd(server->epoll_fd);
	close_fd(server->wake_fd);
	cancel_done(&server->shared.cancel);
	pthread_mutex_destroy(&server->lock);
	free(server->path);
	free(server);
	return NULL;
}

static int watch(struct rpc_server *server, int fd, uint64_t data)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = data };

	return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static int server_open(struct rpc_server *server, struct hib_error *error)
{
	int r = 0;

	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->epoll_fd < 0 || server->wake_fd < 0 ||
	    watch(server, server->wake_fd, EVENT_WAKE) < 0)
		return hib_fail_errno(error, errno,
				      "The control socket cannot be served");
	if (server->path)
		r = rpc_listen(server->path, &server->access,
			       &server->listen_fd, &server->identity, error);
	if (r < 0)
		return r;
	if (server->path && watch(server, server->listen_fd, EVENT_LISTEN) < 0)
		r = -errno;
	if (r == 0)
		r = start_thread(&server->thread, server_run, server);
	if (r < 0)
		return hib_fail_errno(error, -r,
				      "The control socket cannot be served");
	return 0;
}

int rpc_server_start(const struct rpc_config *config, struct rpc_server **ret,
		     struct hib_error *error)
{
	struct rpc_server *server = calloc(1, sizeof(*server));
	int r = 0;

	if (!server)
		return hib_fail_errno(error, ENOMEM,
				      "The control socket cannot be served");
	server->shared.handler = config->handler;
	server->shared.send_timeout_ms = config->send_timeout_ms
						 ? config->send_timeout_ms
						 : SEND_TIMEOUT_MS;
	atomic_init(&server->shared.large, 0);
	atomic_init(&server->shared.stopping, false);
	cancel_init(&server->shared.cancel, NULL);
	server->access = config->access;
	server->log = config->log;
	server->connection_limit = config->connection_limit
					   ? config->connection_limit
					   : CONNECTION_LIMIT;
	server->listen_fd = -EBADF;
	server->epoll_fd = -EBADF;
	server->wake_fd = -EBADF;
	pthread_mutex_init(&server->lock, NULL);
	if (config->path) {
		server->path = strdup(config->path);
		if (!server->path)
			r = hib_fail_errno(
				error, ENOMEM,
				"The control socket cannot be served");
	}
	if (r == 0)
		r = server_open(server, error);
	if (r < 0) {
		server_free(server);
		return r;
	}
	*ret = server;
	return 0;
}

struct rpc_server *rpc_server_stop(struct rpc_server *server)
{
	if (!server)
		return NULL;
	/* The next daemon must not take it for a live one, nor a client. */
	if (server->path)
		rpc_unlisten(server->path, &server->identity);
	/* Under the lock: afterwards no connection is added. */
	pthread_mutex_lock(&server->lock);
	atomic_store(&server->shared.stopping, true);
	pthread_mutex_unlock(&server->lock);
	cancel_request(&server->shared.cancel);
	wake(server);
	pthread_join(server->thread, NULL);
	return server_free(server);
}
