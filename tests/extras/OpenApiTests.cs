using System.Text.Json;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;

/// <summary>GET /openapi/v1.json.</summary>
public sealed class OpenApiTests {
    static async Task<(ReceiverApp App, JsonElement Document)> StartAsync() {
        var app = await ReceiverApp.StartAsync();
        return (app, (await app.GetAsync("/openapi/v1.json")).Json);
    }

    static IEnumerable<(string Route, JsonElement Operation)> Operations(JsonElement document) => document.GetProperty("paths").EnumerateObject()
        .SelectMany(path => path.Value.EnumerateObject().Select(method => ($"{method.Name.ToUpperInvariant()} {path.Name}", method.Value)));

    static IEnumerable<(string Route, RouteEndpoint Endpoint)> Mapped(ReceiverApp app) => app.Services.GetRequiredService<EndpointDataSource>().Endpoints
        .OfType<RouteEndpoint>().SelectMany(endpoint => (endpoint.Metadata.GetMetadata<IHttpMethodMetadata>()?.HttpMethods ?? ["GET"])
            .Select(method => ($"{method} /{endpoint.RoutePattern.RawText!.TrimStart('/').Replace("**", "", StringComparison.Ordinal)}", endpoint)));

    [Fact]
    public async Task It_names_every_route_and_no_other() {
        var (app, document) = await StartAsync();
        await using (app) {
            Assert.Equal(Mapped(app).Select(each => each.Route).Order(StringComparer.Ordinal), Operations(document).Select(each => each.Route).Order(StringComparer.Ordinal));
            Assert.Contains("GET /suppressed/{address}", Operations(document).Select(each => each.Route));
        }
    }

    [Fact]
    public async Task Every_route_has_a_summary_and_says_what_each_status_means() {
        var (app, document) = await StartAsync();
        await using (app)
            foreach (var (route, operation) in Operations(document)) {
                Assert.True(operation.TryGetProperty("summary", out var summary) && summary.GetString()!.Length > 5, route + " has no summary");
                Assert.All(operation.GetProperty("responses").EnumerateObject(), response =>
                    Assert.True(response.Value.GetProperty("description").GetString()!.Length > 1, $"{route} does not say what {response.Name} means"));
                Assert.Contains(operation.GetProperty("responses").EnumerateObject(), response => response.Name[0] == '2');
                Assert.False(operation.TryGetProperty("tags", out _), route + " has tags, which are names of classes");
            }
    }

    [Fact]
    public async Task Every_parameter_of_a_path_is_named() {
        var (app, document) = await StartAsync();
        await using (app)
            foreach (var (route, operation) in Operations(document).Where(each => each.Route.Contains('{')))
                Assert.Contains(operation.GetProperty("parameters").EnumerateArray(), parameter => parameter.GetProperty("in").GetString() == "path"
                    && parameter.GetProperty("required").GetBoolean() && route.EndsWith("{" + parameter.GetProperty("name").GetString() + "}", StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_strangers_may_not_ask_says_so() {
        var (app, document) = await StartAsync();
        await using (app)
            foreach (var (route, endpoint) in Mapped(app)) {
                var operation = Operations(document).Single(each => each.Route == route).Operation;
                bool open = endpoint.Metadata.GetMetadata<IAllowAnonymous>() is not null;
                Assert.Equal(!open, operation.TryGetProperty("security", out _));
                foreach (string status in (string[])["401", "403", "404"])
                    Assert.True(open || operation.GetProperty("responses").TryGetProperty(status, out _), $"{route} does not name {status}");
            }
    }

    [Theory]
    [InlineData("POST /sns", "200 400 403 413 503")]
    [InlineData("GET /sns", "200")]
    [InlineData("GET /health", "200 503")]
    [InlineData("GET /suppressed/{address}", "200 400 401 403 404 503")]
    [InlineData("HEAD /suppressed/{address}", "200 400 401 403 404 503")]
    [InlineData("PUT /suppressed/{address}", "200 201 400 401 403 404 503")]
    [InlineData("DELETE /suppressed/{address}", "204 400 401 403 404 503")]
    [InlineData("GET /history/{address}", "200 400 401 403 404 503")]
    [InlineData("GET /bounces", "200 400 401 403 404 503")]
    [InlineData("GET /complaints", "200 400 401 403 404 503")]
    [InlineData("GET /events", "200 400 401 403 404 503")]
    [InlineData("GET /stats", "200 400 401 403 404 503")]
    [InlineData("GET /status", "200 401 403 404 503")]
    [InlineData("GET /openapi/v1.json", "200 401 403 404")]
    public async Task A_route_names_its_statuses_and_shows_an_example_of_what_it_answers(string route, string statuses) {
        var (app, document) = await StartAsync();
        await using (app) {
            var responses = Operations(document).Single(each => each.Route == route).Operation.GetProperty("responses");
            Assert.Equal(statuses, string.Join(' ', responses.EnumerateObject().Select(response => response.Name).Order(StringComparer.Ordinal)));
            if (route[..4] is not ("HEAD" or "DELE"))
                Assert.NotEmpty(responses.GetProperty("200").GetProperty("content").EnumerateObject().Single().Value.GetProperty("example").ToString());
        }
    }

    [Theory]
    [InlineData("/stats?by=day&since=2026-11-24", "GET /stats")]
    [InlineData("/status", "GET /status")]
    [InlineData("/bounces", "GET /bounces")]
    [InlineData("/history/jane@example.com", "GET /history/{address}")]
    [InlineData("/suppressed/jane@example.com", "GET /suppressed/{address}")]
    public async Task An_example_has_the_members_of_a_real_answer(string url, string route) {
        var (app, document) = await StartAsync();
        await using (app) {
            await app.PostAsync(app.Sns.Bounce("jane@example.com"));
            var real = (await app.GetAsync(url)).Json;
            var example = Operations(document).Single(each => each.Route == route).Operation.GetProperty("responses").GetProperty("200")
                .GetProperty("content").GetProperty("application/json").GetProperty("example");
            Assert.Equal(Members(real), Members(example));
            if (real.TryGetProperty("events", out var events)) Assert.Equal(Members(events[0]), Members(example.GetProperty("events")[0]));
            if (real.TryGetProperty("rows", out var rows)) Assert.Equal(Members(rows[0]), Members(example.GetProperty("rows")[0]));
        }
    }

    [Theory]
    [InlineData("GET /stats", "StatsReport")]
    [InlineData("GET /status", "StatusReport")]
    public async Task An_answer_of_a_type_has_its_schema(string route, string type) {
        var (app, document) = await StartAsync();
        await using (app)
            Assert.Equal("#/components/schemas/" + type, Operations(document).Single(each => each.Route == route).Operation.GetProperty("responses")
                .GetProperty("200").GetProperty("content").GetProperty("application/json").GetProperty("schema").GetProperty("$ref").GetString());
    }

    static string Members(JsonElement json) => string.Join(' ', json.EnumerateObject().Select(member => member.Name));

    [Theory]
    [InlineData("GET /stats")]
    [InlineData("GET /events")]
    public async Task The_parameters_that_it_names_are_those_that_are_taken(string route) {
        var (app, document) = await StartAsync();
        await using (app) {
            var named = Operations(document).Single(each => each.Route == route).Operation.GetProperty("parameters").EnumerateArray()
                .ToDictionary(parameter => parameter.GetProperty("name").GetString()!, parameter => parameter.GetProperty("example").GetString()!);
            named.Remove("by");
            Assert.All(Operations(document).Single(each => each.Route == route).Operation.GetProperty("parameters").EnumerateArray(),
                parameter => Assert.False(parameter.TryGetProperty("required", out var required) && required.GetBoolean()));
            string by = route == "GET /stats" ? "by=subject&" : "";
            foreach (var (name, example) in named)
                Assert.Equal(200, await app.StatusAsync($"{route[4..]}?{by}{name}={Uri.EscapeDataString(example)}"));
            string wrong = (await app.GetAsync($"{route[4..]}?{by}colour=red")).Json.GetProperty("detail").GetString()!;
            Assert.Equal(named.Keys.Order(StringComparer.Ordinal), wrong.Split(": ")[1].TrimEnd('.').Split(' ').Where(name => name != "by").Order(StringComparer.Ordinal));
        }
    }
}
