#include <errno.h>

#include "base/log.h"
#include "meta/options.h"
#include "tests/unit/scratch.h"
#include "tests/unit/test.h"

#define STORE "store=file:///s,"

static void cleanup_options(struct options *options)
{
	options_done(options);
}

/* The message of a list that has to be refused. */
static const char *refusal(const char *list)
{
	static struct hib_error error;
	CLEANUP(cleanup_options) struct options options;
	int r;

	error = HIB_ERROR_INIT;
	options_init(&options);
	r = options_parse_list(&options, list, &error);
	if (r == 0)
		r = options_finish(&options, "/mnt", NULL, &error);
	if (r == 0)
		TEST_FAIL("%s was taken", list);
	CHECK_INT(error.code, -r);
	return error.message;
}

static void parse(struct options *options, const char *list)
{
	struct hib_error error = HIB_ERROR_INIT;

	options_init(options);
	if (options_parse_list(options, list, &error) < 0 ||
	    options_finish(options, "/mnt/a b", NULL, &error) < 0)
		TEST_FAIL("%s: %s", list, error.message);
}

TEST(without_options_there_are_defaults_and_a_store_is_asked_for)
{
	CLEANUP(cleanup_options) struct options options;

	CHECK(strstr(refusal(""), "no store"));
	parse(&options, "store=file:///s");
	CHECK_STR(options.store, "file:///s");
	CHECK_INT(options.shard_depth, 2);
	CHECK_INT(options.on_access, ON_ACCESS_RESUME);
	CHECK_INT(options.chunk_bytes, 262144);
	CHECK_INT(options.pack_bytes, 16777216);
	CHECK_INT(options.log_level, LOG_LEVEL_INFO);
	CHECK_STR(options.socket, "/run/hibfs/mnt-a\\x20b.sock");
	CHECK(!options.mount_options);
}

TEST(every_option_is_taken)
{
	CLEANUP(cleanup_options) struct options options;

	parse(&options,
	      "store=s3://b/p,s3_endpoint=https://h:1,s3_region=r,"
	      "s3_path_style,s3_ca=/ca,s3_insecure_http=yes,"
	      "s3_credentials=/c,s3_profile=p,socket=/x.sock,node=n,"
	      "control_group=g,shard_depth=1,on_access=block,passthrough=off,"
	      "compression=on,chunk_bytes=1M,pack_bytes=64MiB,"
	      "log_level=debug");
	CHECK_STR(options.store, "s3://b/p");
	CHECK_STR(options.s3_endpoint, "https://h:1");
	CHECK_STR(options.s3_region, "r");
	CHECK(options.s3_path_style);
	CHECK_STR(options.s3_ca, "/ca");
	CHECK(options.s3_insecure_http);
	CHECK_STR(options.s3_credentials, "/c");
	CHECK_STR(options.s3_profile, "p");
	CHECK_STR(options.socket, "/x.sock");
	CHECK_STR(options.node, "n");
	CHECK_STR(options.control_group, "g");
	CHECK_INT(options.shard_depth, 1);
	CHECK_INT(options.on_access, ON_ACCESS_BLOCK);
	CHECK_INT(options.passthrough, PASSTHROUGH_OFF);
	CHECK_INT(options.compression, COMPRESSION_ON);
	CHECK_INT(options.chunk_bytes, 1 << 20);
	CHECK_INT(options.pack_bytes, 64 << 20);
	CHECK_INT(options.log_level, LOG_LEVEL_DEBUG);
}

TEST(commas_are_escaped_and_empty_items_passed_over)
{
	CLEANUP(cleanup_options) struct options options;

	parse(&options, ",,store=file:///a\\,b\\\\c\\d,,node=x=y,");
	CHECK_STR(options.store, "file:///a,b\\c\\d");
	CHECK_STR(options.node, "x=y");
}

TEST(a_later_word_wins)
{
	CLEANUP(cleanup_options) struct options options;

	parse(&options, STORE "node=a,s3_path_style,node=b,s3_path_style=no");
	CHECK_STR(options.node, "b");
	CHECK(!options.s3_path_style);
}

TEST(an_unknown_option_names_the_nearest_one_and_not_its_value)
{
	CHECK(strstr(refusal(STORE "shard_dept=1"), "\"shard_depth\""));
	CHECK(strstr(refusal(STORE "on-access=fail"), "\"on_access\""));
	CHECK(strstr(refusal("stor=x"), "\"store\""));
	CHECK(strstr(refusal("region=hunter2"), "\"s3_region\""));
	CHECK(!strstr(refusal("region=hunter2"), "hunter2"));
	CHECK(strstr(refusal("=x"), "without a name"));
}

/* req: A3 */
TEST(credentials_are_refused_with_a_word_on_where_they_belong)
{
	static const char *const bad[] = {
		"s3_secret_key=hunter2",
		"s3_access_key=hunter2",
		"aws_secret_access_key=hunter2",
		"s3_access_key_id=hunter2",
		"s3_session_token=hunter2",
		"password=hunter2",
		"passwd=hunter2",
		"S3_SECRET=hunter2",
		"store=s3://u:hunter2@b",
		STORE "s3_endpoint=http://u:hunter2@h",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *message = refusal(bad[i]);

		CHECK(strstr(message, "s3_credentials"));
		CHECK(!strstr(message, "hunter2"));
	}
}

TEST(wrong_values_are_refused_naming_the_option)
{
	static const char *const bad[][2] = {
		{ "store=", "store needs a value" },
		{ "store", "store needs a value" },
		{ "store=/s", "file:///DIRECTORY" },
		{ "store=file://s", "absolute" },
		{ "store=http://x", "s3://BUCKET" },
		{ "store=s3://", "no bucket" },
		{ "store=s3:///p", "no bucket" },
		{ STORE "s3_endpoint=h:1", "https://HOST" },
		{ STORE "shard_depth=3", "1|2" },
		{ STORE "on_access=", "on_access needs a value" },
		{ STORE "on_access=resum", "resume|fail|block" },
		{ STORE "on_access=resume|fail", "resume|fail|block" },
		{ STORE "s3_path_style=maybe", "is a flag" },
		{ STORE "chunk_bytes=300K", "power of two" },
		{ STORE "chunk_bytes=128K", "between" },
		{ STORE "chunk_bytes=8M", "between" },
		{ STORE "pack_bytes=x", "number of bytes" },
		{ STORE "pack_bytes=-1", "number of bytes" },
		{ STORE "pack_bytes=16MM", "number of bytes" },
		{ STORE "pack_bytes=99999999999999999999", "number of bytes" },
		{ STORE "pack_bytes=9999999999T", "number of bytes" },
		{ STORE "pack_bytes=2M", "between" },
		{ STORE "rate=1M", "not supported by this version" },
		{ STORE "key_file=/k", "not supported by this version" },
		{ STORE "cluster=http://h", "not supported by this version" },
		{ STORE "node=\xff", "not UTF-8" },
		{ STORE "conf=/does/not/exist", "/does/not/exist" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (!strstr(refusal(bad[i][0]), bad[i][1]))
			TEST_FAIL("%s: %s", bad[i][0], refusal(bad[i][0]));
}

TEST(what_mount_and_fstab_pass_is_sorted_out)
{
	CLEANUP(cleanup_options) struct options options;

	parse(&options,
	      STORE "rw,nosuid,nodev,noatime,_netdev,allow_other,user,auto,"
		    "noauto,nofail,defaults,default_permissions,dev,noexec,"
		    "x-systemd.automount,x-systemd.requires=/run,relatime,"
		    "comment=x,ro,fsname=abc");
	CHECK_STR(
		options.mount_options,
		"rw,nosuid,nodev,noatime,allow_other,dev,noexec,ro,fsname=abc");
	CHECK(options.read_only);
	CHECK(strstr(refusal("fsname=a\\,suid"), "comma"));
}

TEST(a_conf_file_gives_what_the_command_line_does_not)
{
	CLEANUP(cleanup_options) struct options options;
	struct hib_error error = HIB_ERROR_INIT;
	static const char conf[] = "# comment = x\n"
				   "\n"
				   "  store = file:///from conf, with comma\r\n"
				   "node=conf\n"
				   "s3_path_style\n"
				   "pack_bytes\t=\t16M\n"
				   "on_access = block";
	char path[256], list[512];
	int fd = scratch_new();
	json_t *json;

	scratch_write(fd, "c", conf, strlen(conf));
	scratch_path(fd, path);
	snprintf(list, sizeof(list), "node=line,conf=%s/c,pack_bytes=32M",
		 path);
	options_init(&options);
	CHECK_INT(options_parse_list(&options, list, NULL), 0);
	CHECK_INT(options_finish(&options, "/", "/r", &error), 0);
	CHECK_STR(options.store, "file:///from conf, with comma");
	CHECK_STR(options.node, "line");
	CHECK(options.s3_path_style);
	CHECK_INT(options.pack_bytes, 32 << 20);
	CHECK_INT(options.on_access, ON_ACCESS_BLOCK);
	CHECK_STR(options.socket, "/r/-.sock");
	json = options_to_json(&options);
#define MEMBER(option, key) json_object_get(json_object_get(json, option), key)
	CHECK_STR(json_string_value(MEMBER("node", "origin")), "command line");
	CHECK_STR(json_string_value(MEMBER("store", "origin")), "conf");
	CHECK_STR(json_string_value(MEMBER("shard_depth", "origin")),
		  "default");
	CHECK_STR(json_string_value(MEMBER("on_access", "value")), "block");
	CHECK_STR(json_string_value(MEMBER("shard_depth", "value")), "2");
	CHECK(json_is_true(MEMBER("s3_path_style", "value")));
	CHECK(json_is_null(MEMBER("s3_ca", "value")));
	CHECK_INT(json_integer_value(MEMBER("pack_bytes", "value")), 32 << 20);
	json_decref(json);
	scratch_done(fd);
}

static const char *conf_refusal(const char *text)
{
	static struct hib_error error;
	CLEANUP(cleanup_options) struct options options;

	options_init(&options);
	CHECK_INT(options_parse_conf(&options, "c.conf", text, &error),
		  -EINVAL);
	return error.message;
}

TEST(an_error_in_a_conf_file_names_file_and_line)
{
	CHECK(strstr(conf_refusal("# x\n\nnod = 1\n"), "c.conf, line 3: "));
	CHECK(strstr(conf_refusal("conf = other"), "another one"));
	CHECK(strstr(conf_refusal("= x"), "without a name"));
	CHECK(strstr(conf_refusal("password = x"), "credentials"));
}

TEST(the_socket_is_named_as_systemd_escapes_paths)
{
	static const char *const cases[][2] = {
		{ "/", "-" },
		{ "///", "-" },
		{ "/mnt", "mnt" },
		{ "//mnt//a/", "mnt-a" },
		{ "/mnt/a-b", "mnt-a\\x2db" },
		{ "/.x/.y", "\\x2ex-.y" },
		{ "/\xc3\xa4", "\\xc3\\xa4" },
		{ "/a:b_c.d", "a:b_c.d" },
	};
	char path[OPTION_SOCKET_BYTES], wanted[100], name[200];
	struct hib_error error = HIB_ERROR_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CHECK_INT(options_socket_path(NULL, cases[i][0], path, NULL),
			  0);
		snprintf(wanted, sizeof(wanted), "/run/hibfs/%s.sock",
			 cases[i][1]);
		CHECK_STR(path, wanted);
	}
	CHECK_INT(options_socket_path(NULL, "mnt", path, NULL), -EINVAL);
	for (size_t length = 80; length < 199; length++) {
		memset(name, 'x', sizeof(name));
		name[0] = '/';
		name[length] = 0;
		CHECK_INT(options_socket_path(NULL, name, path, &error),
			  11 + length - 1 + 5 < OPTION_SOCKET_BYTES
				  ? 0
				  : -ENAMETOOLONG);
	}
	CHECK(strstr(error.message, "socket=PATH"));
}

TEST(the_help_lists_every_option)
{
	size_t count = 0;

	while (options_help(count)) {
		CHECK(options_help(count)->help[0]);
		count++;
	}
	CHECK_INT(count, 22);
	CHECK_STR(options_help(0)->name, "store");
	CHECK(!options_help(count + 5));
}

/* Not a fuzzer: every byte of a good list changed in several ways. */
TEST(no_change_of_a_byte_harms_the_parser)
{
	char list[] =
		"store=s3://b/p,chunk_bytes=1M,node=a\\,b,ro,pack_bytes=9M,"
		"shard_depth=2,x-y=z,s3_path_style,on_access=fail";

	for (size_t i = 0; i < sizeof(list) - 1; i++) {
		char old = list[i];

		for (int value = 1; value < 256; value++) {
			CLEANUP(cleanup_options) struct options options;

			list[i] = (char)value;
			options_init(&options);
			if (options_parse_list(&options, list, NULL) == 0)
				options_finish(&options, "/m", NULL, NULL);
		}
		list[i] = old;
	}
}

TEST_MAIN()
